use openraft::vote::RaftLeaderIdExt;

use crate::raft::LogId;

use super::*;

const FAR: u64 = FOR_GOOD - 1;

fn authority_at(index: u64) -> Authority {
    let leader = openraft::impls::leader_id_adv::LeaderId::<u64, u64>::new_committed(1, 1);
    let published = Published::default();
    published.publish(View { applied: Some(LogId::new(leader, index)), ..View::default() });
    Authority::new(Arc::new(published))
}

#[test]
fn it_answers_exactly_as_long_as_the_lease() {
    let (authority, vote) = (authority_at(1), Vote::new_committed(1, 1));
    assert!(!authority.is_open());
    authority.open(&vote, FAR);
    assert!(authority.is_open());
    authority.open(&vote, clock::now());
    assert!(!authority.is_open(), "a lease that has just ended");
    authority.open(&vote, FOR_GOOD);
    assert!(authority.is_open() && authority.is_alone());
    authority.shut();
    assert!(!authority.is_open());
}

#[test]
fn what_a_sealed_one_said_stays_true_for_as_long_as_it_was_said_for() {
    let vote = Vote::new_committed(1, 1);
    let only_voter = authority_at(1);
    only_voter.lead_alone(&vote);
    only_voter.seal();
    only_voter.shut();
    only_voter.close();
    assert!(only_voter.is_open(), "nobody else can have written anything");
    only_voter.void(&vote);
    assert!(!only_voter.is_open());

    let leader = authority_at(1);
    let until = clock::now() + 20_000_000;
    leader.open(&vote, until);
    leader.seal();
    leader.open(&vote, FAR);
    while clock::now() <= until {
        std::thread::yield_now();
    }
    assert!(!leader.is_open(), "its lease has ended");

    let follower = authority_at(1);
    follower.seal();
    follower.lead_alone(&vote);
    assert!(!follower.is_open());
}

#[test]
fn a_vote_that_was_given_away_is_never_renewed_and_a_later_one_is() {
    let authority = authority_at(1);
    let (given_away, later) = (Vote::new_committed(1, 1), Vote::new_committed(3, 1));
    authority.open(&given_away, FAR);
    authority.void(&given_away);
    assert!(!authority.is_open());
    authority.open(&given_away, FAR);
    assert!(!authority.is_open(), "what followers acknowledge does not count any more");
    authority.open(&later, FAR);
    assert!(authority.is_open());
    authority.void(&given_away);
    authority.open(&later, FAR);
    assert!(authority.is_open(), "nothing of the later vote was given away");
    authority.close();
    authority.open(&later, FAR);
    assert!(!authority.is_open());
}

#[test]
fn a_vote_for_another_one_ends_the_lease_of_all_earlier_votes_unless_it_was_refused() {
    let authority = authority_at(1);
    let (leads, later) = (Vote::new_committed(2, 1), Vote::new_committed(4, 1));
    // Metrics may still show the vote of term 1, or none.
    let (refused, granted) = (authority.suspend(&Vote::new(3, 2)), authority.suspend(&Vote::new(3, 3)));
    authority.open(&leads, FAR);
    assert!(!authority.is_open(), "two questions are not answered yet");
    refused.lift();
    authority.open(&leads, FAR);
    assert!(!authority.is_open(), "one is not answered yet");
    drop(granted);
    drop(authority.suspend(&Vote::new(1, 2)));
    authority.open(&leads, FAR);
    assert!(!authority.is_open(), "another one was voted for");
    authority.open(&later, FAR);
    assert!(authority.is_open());
    let refused = authority.suspend(&Vote::new(5, 2));
    assert!(!authority.is_open());
    refused.lift();
    authority.open(&later, FAR);
    assert!(authority.is_open(), "it leads on");
}

#[test]
fn a_view_that_lacks_what_others_may_show_is_not_authoritative() {
    let authority = authority_at(7);
    assert!(authority.view().is_none() && authority.leased_index().is_none(), "it is shut");
    authority.lead_alone(&Vote::new_committed(1, 1));
    assert!(authority.view().is_some());
    assert_eq!(authority.leased_index(), Some(7), "what is applied may be acknowledged");
    authority.tell(9);
    assert!(authority.view().is_none(), "another member may show 9 already");
    assert_eq!(authority.leased_index(), Some(9));
    authority.tell(8);
    assert_eq!(authority.leased_index(), Some(9), "what was told stays told");
}
