//! Durable puts into etcd by some clients at once, each with one on its way: what `Tank.Bench.Load` is for the stores
//! that run in its VM.
//!
//! `etcd_load PORT SECONDS CLIENTS PODS VALUE_BYTES` prints one line: puts, seconds, and the 50th and 99th percentile in
//! microseconds. With SECONDS 0, it puts each of the pods once.

use std::error::Error;
use std::time::{Duration, Instant};

use bytes::{BufMut, Bytes, BytesMut};
use h2::client::SendRequest;
use tokio::net::TcpStream;

/// Clients that share a connection, as etcd's own benchmark tool has them share a few.
const CLIENTS_A_CONNECTION: usize = 64;

type Failure = Box<dyn Error>;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Failure> {
    let [port, seconds, clients, pods, bytes] = arguments().ok_or("PORT SECONDS CLIENTS PODS VALUE_BYTES")?;
    let local = tokio::task::LocalSet::new();
    let (micros, elapsed) = local.run_until(run(port, seconds as u64, clients, pods, bytes)).await?;
    let at = |part: f64| micros[((micros.len() - 1) as f64 * part) as usize];
    println!("{} {:.6} {:.1} {:.1}", micros.len(), elapsed.as_secs_f64(), at(0.5), at(0.99));
    Ok(())
}

fn arguments() -> Option<[usize; 5]> {
    let numbers: Option<Vec<usize>> = std::env::args().skip(1).map(|text| text.parse().ok()).collect();
    numbers?.try_into().ok()
}

/// The microseconds of each put, sorted, and how long it took in all.
async fn run(
    port: usize,
    seconds: u64,
    clients: usize,
    pods: usize,
    bytes: usize,
) -> Result<(Vec<f64>, Duration), Failure> {
    let mut connections = Vec::new();
    for _ in 0..clients.div_ceil(CLIENTS_A_CONNECTION) {
        connections.push(connect(port).await?);
    }
    let value = Bytes::from((0..bytes).map(|at| (at * 31 % 251) as u8).collect::<Vec<_>>());
    let start = Instant::now();
    let until = (seconds > 0).then(|| start + Duration::from_secs(seconds));
    let running: Vec<_> = (0..clients)
        .map(|number| {
            let client = Client { send: connections[number % connections.len()].clone(), port, value: value.clone() };
            tokio::task::spawn_local(client.puts(number, clients, pods, until))
        })
        .collect();
    let mut micros = Vec::new();
    for client in running {
        micros.extend(client.await?);
    }
    let elapsed = start.elapsed();
    micros.sort_by(f64::total_cmp);
    Ok((micros, elapsed))
}

async fn connect(port: usize) -> Result<SendRequest<Bytes>, Failure> {
    let tcp = TcpStream::connect(("127.0.0.1", u16::try_from(port)?)).await?;
    tcp.set_nodelay(true)?;
    let (send, connection) = h2::client::handshake(tcp).await?;
    tokio::task::spawn_local(async move { connection.await.expect("the connection to etcd") });
    Ok(send)
}

struct Client {
    send: SendRequest<Bytes>,
    port: usize,
    value: Bytes,
}

impl Client {
    /// Puts until a moment, in no order; or its share of the pods, once.
    async fn puts(mut self, number: usize, clients: usize, pods: usize, until: Option<Instant>) -> Vec<f64> {
        let mut micros = Vec::new();
        let mut seed = number as u64 * 7919 + 1;
        for turn in 0.. {
            let pod = match until {
                Some(until) if Instant::now() >= until => break,
                Some(_) => random(&mut seed) as usize % pods,
                None if number + turn * clients >= pods => break,
                None => number + turn * clients,
            };
            let before = Instant::now();
            self.put(pod).await.expect("a put");
            micros.push(before.elapsed().as_secs_f64() * 1e6);
        }
        micros
    }

    async fn put(&mut self, pod: usize) -> Result<(), Failure> {
        let uri = format!("http://127.0.0.1:{}/etcdserverpb.KV/Put", self.port);
        let request = http::Request::post(uri).header("content-type", "application/grpc").header("te", "trailers");
        let mut ready = self.send.clone().ready().await?;
        let (response, mut stream) = ready.send_request(request.body(())?, false)?;
        stream.send_data(message(&format!("/tank/pods/pod-{pod:07}"), &self.value), true)?;
        // A refusal has no body: its status is in the head.
        let (head, mut body) = response.await?.into_parts();
        while let Some(chunk) = body.data().await {
            body.flow_control().release_capacity(chunk?.len())?;
        }
        let trailers = body.trailers().await?.unwrap_or_default();
        match trailers.get("grpc-status").map(http::HeaderValue::as_bytes) {
            Some(b"0") => Ok(()),
            _ => Err(format!("etcd answered {:?} {trailers:?}", head.headers).into()),
        }
    }
}

/// `PutRequest { key: 1, value: 2 }` with the head of a gRPC message.
fn message(key: &str, value: &[u8]) -> Bytes {
    let mut request = BytesMut::new();
    field(&mut request, 1, key.as_bytes());
    field(&mut request, 2, value);
    let mut framed = BytesMut::with_capacity(request.len() + 5);
    framed.put_u8(0);
    framed.put_u32(u32::try_from(request.len()).expect("a message of less than 4 GiB"));
    framed.extend_from_slice(&request);
    framed.freeze()
}

fn field(buffer: &mut BytesMut, number: u8, bytes: &[u8]) {
    buffer.put_u8(number << 3 | 2);
    let mut rest = bytes.len();
    while rest >= 0x80 {
        buffer.put_u8(rest as u8 | 0x80);
        rest >>= 7;
    }
    buffer.put_u8(rest as u8);
    buffer.extend_from_slice(bytes);
}

/// SplitMix64 (Steele, Lea, Flood 2014).
fn random(seed: &mut u64) -> u64 {
    *seed = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut mixed = *seed;
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}
