//! What does an opening expect to find in a directory, and what may it make there?

use super::Expected;

/// What is known of a directory when it is opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Opening {
    /// Nothing: the store was not open before, as far as the caller knows.
    First(First),
    /// It was open, and one of these was in it: so it must be there now. None is made.
    Again(Vec<Expected>),
}

/// What a first opening does in a directory that is missing or empty.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum First {
    /// Makes a store there.
    MayCreate,
    /// Refuses: a mount may be missing.
    MustExist,
}

/// What a new directory becomes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Formation {
    /// The first member of a new cluster. A directory that exists stays what it is.
    NewCluster,
    /// A member that an existing cluster takes in: it waits for that. What the directory holds is
    /// set aside ([`super::Directory::open_as`]).
    Joining {
        /// The cluster's id.
        cluster_id: u64,
        /// The id that it will be taken in with; never used before.
        member_id: u64,
    },
    /// The only member of a cluster of its own, whatever it was a member of: for when the quorum
    /// of that is lost for good.
    ForceNew {
        /// The new cluster's id.
        cluster_id: u64,
    },
}
