use std::pin::pin;
use std::task::Poll;

use super::*;

fn unlock(wallet: &str) -> Asked {
    Asked::Unlock { wallet: wallet.to_owned() }
}

fn address(last: u8) -> Option<IpAddr> {
    Some(IpAddr::from([192, 168, 1, last]))
}

/// A board with a panel, and the rules of someone who wants everything approved.
fn box_with_panel() -> (Arc<Consent>, Seat) {
    let consent = Consent::new(ConsentRules {
        unlock: true,
        send: true,
        send_above: Amount::from_sat(1000),
        ..ConsentRules::default()
    });
    let seat = consent.seat().unwrap();
    seat.panel(true);
    (consent, seat)
}

/// Starts to ask and gives the id that the panel shows.
async fn asking(
    consent: &Arc<Consent>,
    asked: Asked,
) -> (tokio::task::JoinHandle<Result<Approval, Refusal>>, String) {
    let mut pending = consent.pending();
    let (asker, task) = (Arc::clone(consent), asked.clone());
    let task = tokio::spawn(async move { asker.ask(task, address(1)).await });
    let this = |shown: &Option<Arc<PendingRequest>>| {
        shown.as_ref().is_some_and(|shown| shown.asked == asked)
    };
    let shown = pending.wait_for(this).await.unwrap().clone().unwrap();
    (task, shown.id.clone())
}

#[tokio::test(start_paused = true)]
async fn a_press_approves_the_request_that_was_shown_and_no_other() {
    let (consent, seat) = box_with_panel();
    let (task, first) = asking(&consent, unlock("a")).await;
    for wrong in ["", "unlock-", &first[1..], &format!("{first}0")] {
        assert!(!seat.approve(wrong));
        assert!(!seat.refuse(wrong));
    }
    assert!(seat.approve(&first));
    assert!(consent.pending().borrow().is_none());
    let approval = task.await.unwrap().unwrap();
    assert_eq!(consent.still_good(&approval), Ok(()));
    // The same press again, and while the next request waits.
    assert!(!seat.approve(&first));
    let (task, second) = asking(&consent, unlock("a")).await;
    assert_ne!(first, second);
    assert!(!seat.approve(&first) && !seat.refuse(&first));
    assert!(seat.refuse(&second));
    assert_eq!(task.await.unwrap(), Err(Refusal::Refused));
    assert!(!seat.approve(&second));
}

#[tokio::test(start_paused = true)]
async fn after_the_deadline_a_press_is_too_late() {
    let (consent, seat) = box_with_panel();
    let (task, id) = asking(&consent, unlock("a")).await;
    tokio::time::advance(Duration::from_secs(60)).await;
    assert!(!seat.approve(&id), "at the deadline it is over, whoever comes first");
    assert_eq!(task.await.unwrap(), Err(Refusal::TimedOut));
    assert!(consent.pending().borrow().is_none());
    let (task, id) = asking(&consent, unlock("a")).await;
    tokio::time::advance(Duration::from_millis(59_999)).await;
    assert!(seat.approve(&id));
    // Approved in time, although nobody looked before the time was over.
    tokio::time::advance(Duration::from_secs(10)).await;
    assert!(task.await.unwrap().is_ok());
}

#[tokio::test(start_paused = true)]
async fn without_a_panel_nothing_waits() {
    let consent = Consent::new(ConsentRules::default());
    assert_eq!(consent.ask(unlock("a"), None).await, Err(Refusal::NoBoard));
    let seat = consent.seat().unwrap();
    assert_eq!(consent.check_free(), Err(Refusal::NoPanel));
    assert_eq!(consent.ask(unlock("a"), None).await, Err(Refusal::NoPanel));
    seat.panel(true);
    assert!(consent.seat().is_none(), "there is one board");
    let (task, _) = asking(&consent, unlock("a")).await;
    seat.panel(false);
    assert_eq!(task.await.unwrap(), Err(Refusal::NoPanel));
    seat.panel(true);
    let (task, _) = asking(&consent, unlock("a")).await;
    assert_eq!(consent.check_free(), Err(Refusal::Busy));
    drop(seat);
    assert_eq!(task.await.unwrap(), Err(Refusal::NoBoard));
    assert_eq!(consent.ask(unlock("a"), None).await, Err(Refusal::NoBoard));
    assert!(consent.seat().is_some());
}

#[tokio::test(start_paused = true)]
async fn the_same_unlock_joins_and_everything_else_is_sent_away() {
    let (consent, seat) = box_with_panel();
    let (task, id) = asking(&consent, unlock("a")).await;
    for (other, from) in [(unlock("b"), address(1)), (unlock("a"), address(2)), (unlock("a"), None)]
    {
        assert_eq!(consent.ask(other, from).await, Err(Refusal::Busy));
    }
    let joined = consent.ask(unlock("a"), address(1));
    let mut joined = pin!(joined);
    let waits = std::future::poll_fn(|cx| Poll::Ready(joined.as_mut().poll(cx).is_pending()));
    assert!(waits.await);
    assert!(seat.approve(&id));
    assert!(joined.await.is_ok() && task.await.unwrap().is_ok());
}

#[tokio::test(start_paused = true)]
async fn who_goes_away_takes_the_request_along() {
    let (consent, seat) = box_with_panel();
    let (task, id) = asking(&consent, unlock("a")).await;
    let (asker, mut pending) = (Arc::clone(&consent), consent.pending());
    let joined = tokio::spawn(async move { asker.ask(unlock("a"), address(1)).await });
    tokio::task::yield_now().await;
    task.abort();
    assert_eq!(joined.await.unwrap(), Err(Refusal::Withdrawn));
    assert!(pending.wait_for(Option::is_none).await.is_ok());
    assert!(!seat.approve(&id));
}

#[tokio::test(start_paused = true)]
async fn a_hold_refuses_what_waits_and_what_was_approved_but_not_done() {
    let (consent, seat) = box_with_panel();
    let (task, id) = asking(&consent, unlock("a")).await;
    assert!(seat.approve(&id));
    let approval = task.await.unwrap().unwrap();
    consent.hold();
    assert_eq!(consent.still_good(&approval), Err(Refusal::Refused));
    let (task, id) = asking(&consent, unlock("a")).await;
    consent.hold();
    assert_eq!(task.await.unwrap(), Err(Refusal::Refused));
    assert!(!seat.approve(&id));
    let (task, _) = asking(&consent, unlock("a")).await;
    consent.wallet_closed();
    assert!(consent.pending().borrow().is_some(), "an unlock does not need the open wallet");
    consent.close();
    assert_eq!(task.await.unwrap(), Err(Refusal::Withdrawn));
    assert_eq!(consent.ask(unlock("a"), None).await, Err(Refusal::Withdrawn));
}

#[test]
fn small_payments_pass_and_sweeps_never_do() {
    let (consent, _seat) = box_with_panel();
    for (amount, needed) in
        [(Some(1), false), (Some(1000), false), (Some(1001), true), (None, true)]
    {
        assert_eq!(consent.needed_for_send(amount.map(Amount::from_sat)), needed, "{amount:?}");
    }
    let nothing = Consent::new(ConsentRules::default());
    assert!(!nothing.needed_for_unlock() && !nothing.needed_for_send(None));
}

fn resume(wallet: &str) -> Asked {
    Asked::Resume { wallet: wallet.to_owned() }
}

/// A standing request, and its id once a board would show it.
async fn standing(
    consent: &Arc<Consent>,
) -> (tokio::task::JoinHandle<Result<Approval, Refusal>>, String) {
    let mut pending = consent.pending();
    let asker = Arc::clone(consent);
    let task = tokio::spawn(async move { asker.ask_standing(resume("a")).await });
    let shown = pending.wait_for(Option::is_some).await.unwrap().clone().unwrap();
    assert_eq!((&shown.asked, shown.deadline), (&resume("a"), None));
    (task, shown.id.clone())
}

#[tokio::test(start_paused = true)]
async fn a_standing_request_waits_for_days_for_a_board_and_behind_others() {
    let consent = Consent::new(ConsentRules::default());
    let (task, id) = standing(&consent).await;
    assert_eq!(consent.ask_standing(resume("b")).await, Err(Refusal::Busy));
    let seat = consent.seat().unwrap();
    assert!(!seat.approve(&id), "without a panel it was not seen");
    seat.panel(true);
    tokio::time::advance(Duration::from_secs(500_000)).await;
    seat.panel(false);
    drop(seat);
    let seat = consent.seat().unwrap();
    seat.panel(true);
    // Another request takes its place on the panel, and is not approved or refused by its presses.
    assert_eq!(consent.check_free(), Ok(()));
    let (other, other_id) = asking(&consent, unlock("a")).await;
    assert!(!seat.approve(&id) && !seat.refuse(&id));
    assert!(seat.refuse(&other_id));
    assert_eq!(other.await.unwrap(), Err(Refusal::Refused));
    assert_eq!(consent.pending().borrow().as_ref().unwrap().id, id);
    // Nor does a payment of a wallet that is closed take it along.
    consent.wallet_closed();
    assert!(!task.is_finished());
    assert!(seat.approve(&id));
    assert!(!seat.approve(&id));
    let approval = task.await.unwrap().unwrap();
    assert_eq!(consent.still_good(&approval), Ok(()));
    assert!(consent.pending().borrow().is_none());
}

#[tokio::test(start_paused = true)]
async fn a_standing_request_ends_by_a_hold_a_refusal_the_end_and_whoever_asked() {
    let (consent, seat) = box_with_panel();
    let (task, _) = standing(&consent).await;
    let (other, _) = asking(&consent, unlock("a")).await;
    consent.hold();
    assert_eq!(task.await.unwrap(), Err(Refusal::Refused));
    assert_eq!(other.await.unwrap(), Err(Refusal::Refused));

    let (task, id) = standing(&consent).await;
    assert!(seat.refuse(&id));
    assert_eq!(task.await.unwrap(), Err(Refusal::Refused));

    let (task, id) = standing(&consent).await;
    task.abort();
    assert!(task.await.unwrap_err().is_cancelled());
    assert!(consent.pending().borrow().is_none());
    assert!(!seat.approve(&id));

    // What was approved before a hold is worth nothing after it.
    let (task, id) = standing(&consent).await;
    assert!(seat.approve(&id));
    let approval = task.await.unwrap().unwrap();
    consent.hold();
    assert_eq!(consent.still_good(&approval), Err(Refusal::Refused));

    let (task, _) = standing(&consent).await;
    consent.close();
    assert_eq!(task.await.unwrap(), Err(Refusal::Withdrawn));
    assert_eq!(consent.ask_standing(resume("a")).await, Err(Refusal::Withdrawn));
}
