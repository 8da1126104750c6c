//! Mounts that go away under a store, and come back.

use super::{Cluster, copy_store};

/// What is at a path whose mount is gone.
#[derive(Clone, Copy, Debug)]
pub enum MountPoint {
    Missing,
    Empty,
    /// The directory of another member of the same store.
    OtherMember(usize),
}

impl Cluster {
    /// Takes the directory of a member away, which runs or not. Its open files stay what they are.
    pub fn unmount(&self, node: usize, mount_point: MountPoint) {
        self.0.trace.note(format_args!("unmount {node}: {mount_point:?}"));
        let other = match mount_point {
            MountPoint::OtherMember(other) => Some(self.state(other).dir.clone()),
            _ => None,
        };
        let mut state = self.state(node);
        let away = self.new_dir(node, &mut state);
        std::fs::rename(&state.dir, &away).unwrap();
        match (mount_point, other) {
            (MountPoint::Empty, _) => std::fs::create_dir(&state.dir).unwrap(),
            (_, Some(other)) => copy_store(&other, &state.dir),
            _ => {}
        }
        state.away = Some(away);
        self.behaviour(node).unmounted(true);
    }

    /// Brings the directory of a member back.
    pub fn mount(&self, node: usize) {
        let mut state = self.state(node);
        let Some(away) = state.away.take() else { return };
        self.0.trace.note(format_args!("mount {node}"));
        if state.dir.exists() {
            std::fs::remove_dir_all(&state.dir).unwrap();
        }
        std::fs::rename(&away, &state.dir).unwrap();
        self.behaviour(node).unmounted(false);
    }
}
