//! `tank_switch SEED INTERFACE...`: switches frames between interfaces until its standard input ends.
//!
//! Reads orders from its standard input and answers them on its standard output; see `tank_lab::control`.

#[cfg(target_os = "linux")]
fn main() -> std::process::ExitCode {
    use std::io::Write;

    match linux::run(std::env::args().skip(1)) {
        Ok(()) => std::process::ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "tank_switch: {error}");
            std::process::ExitCode::FAILURE
        }
    }
}

#[cfg(not(target_os = "linux"))]
fn main() -> std::process::ExitCode {
    std::process::ExitCode::FAILURE
}

#[cfg(target_os = "linux")]
mod linux {
    use std::{
        fs::File,
        io::{self, Read, Write},
        os::fd::{AsFd, AsRawFd},
        time::Instant,
    };

    use tank_lab::{
        control::{self, Order},
        port::{self, Port},
        switch::Switch,
    };

    // Frames taken from one port in a row, so that none waits long for the others.
    const BATCH: usize = 64;

    pub(super) fn run(mut arguments: impl Iterator<Item = String>) -> io::Result<()> {
        let seed = arguments.next().and_then(|seed| seed.parse().ok());
        let seed = seed.ok_or_else(|| io::Error::other("usage: tank_switch SEED INTERFACE..."))?;
        let mut ports = Vec::new();
        for name in arguments {
            ports.push(Port::open(&name).map_err(|error| io::Error::other(format!("{name}: {error}")))?);
        }
        port::hurry();
        let mut switch = Switch::new(ports.len(), port::HEADER_BYTES, seed);
        // Past the buffer of `Stdin`: what it holds, no poll would tell of.
        let input = File::from(io::stdin().as_fd().try_clone_to_owned()?);
        let mut orders = Orders { input, unread: Vec::new() };
        let mut buffer = vec![0; port::FRAME_BYTES_MAX];
        let mut descriptors = vec![orders.input.as_raw_fd()];
        descriptors.extend(ports.iter().map(AsRawFd::as_raw_fd));
        let started = Instant::now();
        let now_ns = || u64::try_from(started.elapsed().as_nanos()).unwrap_or(u64::MAX);
        say("ready")?;
        loop {
            let timeout_ns = switch.next_due_ns().map(|due_ns| due_ns.saturating_sub(now_ns()));
            let ready = port::wait(&descriptors, timeout_ns)?;
            if ready.first() == Some(&true) && !orders.obey(&mut switch, &ports)? {
                return Ok(());
            }
            for (from, port) in ports.iter().enumerate().filter(|(from, _)| ready.get(from + 1) == Some(&true)) {
                for _frame in 0..BATCH {
                    let Some(frame) = port.receive(&mut buffer)? else { break };
                    switch.accept(from, frame, now_ns());
                }
            }
            while let Some(due) = switch.take_due(now_ns()) {
                if let Some(port) = ports.get_mut(due.port) {
                    port.send(&due.frame);
                }
            }
        }
    }

    struct Orders {
        input: File,
        // The start of a line whose end has not come yet.
        unread: Vec<u8>,
    }

    impl Orders {
        // Reads what is there and carries it out; false at the end of the input.
        fn obey(&mut self, switch: &mut Switch, ports: &[Port]) -> io::Result<bool> {
            let mut chunk = [0; 4096];
            let bytes = self.input.read(&mut chunk)?;
            self.unread.extend_from_slice(chunk.get(..bytes).unwrap_or_default());
            while let Some(end) = self.unread.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.unread.drain(..=end).collect();
                say(&match control::parse(&String::from_utf8_lossy(&line), ports.len()) {
                    Ok(Order::Stats) => switch.obey(Order::Stats) + &own_losses(ports)?,
                    Ok(order) => switch.obey(order),
                    Err(error) => format!("error {error}"),
                })?;
            }
            Ok(bytes > 0)
        }
    }

    // What the switch lost itself, and no link: ` overruns=N refused=N`. The overruns are those since the last time.
    fn own_losses(ports: &[Port]) -> io::Result<String> {
        let overruns = ports.iter().map(Port::overruns).sum::<io::Result<u32>>()?;
        let refused: u64 = ports.iter().map(|port| port.refused).sum();
        Ok(format!(" overruns={overruns} refused={refused}"))
    }

    fn say(line: &str) -> io::Result<()> {
        let mut stdout = io::stdout();
        writeln!(stdout, "{line}")?;
        stdout.flush()
    }
}
