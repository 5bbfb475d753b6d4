//! Leases against a real Redis.

use std::collections::HashMap;
use std::sync::Arc;
use std::thread::sleep;
use std::time::{Duration, Instant};

use fleet::lease::{Member, Request, Share, Terms};
use fleet::server::Server;
use redis::{Commands as _, Connection};

const KEY: &str = "fleet";
/// Long enough for everything that must happen before a lease ends, even on a busy machine.
const LEASE: Duration = Duration::from_secs(1);
const TERMS: Terms = Terms { limit: 12, minimum: 0, processes: 0, lease: LEASE, work: Duration::ZERO };
/// For tests in which no lease ends.
const LONG: Terms = Terms { lease: Duration::from_secs(3600), ..TERMS };

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// A server that has had members with these terms before, and a connection.
fn start(terms: Terms) -> (Server, Connection) {
    let server = Server::start().unwrap();
    let mut connection = server.connect().unwrap();
    let other = Share::new(terms).unwrap().request();
    other.send(&mut connection, KEY).unwrap();
    connection.hdel::<_, _, ()>(KEY, other.id).unwrap();
    connection.hset::<_, _, _, ()>(KEY, "@grace", 0).unwrap();
    (server, connection)
}

/// The request of a member that keeps and demands that many tokens.
fn request(template: &Share, keep: usize, demand: usize) -> Request {
    let mut request = template.request();
    (request.keep, request.demand) = (keep, demand);
    request
}

fn member(terms: Terms) -> Share {
    Share::new(terms).unwrap()
}

fn leases(connection: &mut Connection) -> HashMap<String, usize> {
    let fields: HashMap<String, String> = connection.hgetall(KEY).unwrap();
    let members = fields.into_iter().filter(|(id, _)| !id.starts_with('@'));
    members.map(|(id, lease)| (id, lease.split(' ').next().unwrap().parse().unwrap())).collect()
}

#[test]
fn a_dead_member_is_replaced_when_its_lease_expires() {
    let (_server, mut redis) = start(TERMS);
    let (dead, alive) = (member(TERMS), member(TERMS));
    let begin = Instant::now();
    assert_eq!(request(&dead, 0, 12).send(&mut redis, KEY).unwrap(), 12);
    let mut keep = request(&alive, 0, 12).send(&mut redis, KEY).unwrap();
    assert_eq!(keep, 0, "all tokens are leased");
    while keep < 12 {
        assert!(begin.elapsed() < ms(10_000), "the tokens were never granted");
        sleep(ms(5));
        keep = request(&alive, keep, 12).send(&mut redis, KEY).unwrap();
    }
    assert!(begin.elapsed() >= LEASE, "the lease was cut short");
    assert_eq!(leases(&mut redis).len(), 1);
}

#[test]
fn demand_moves_shares() {
    let (_server, mut redis) = start(LONG);
    let (one, two, three) = (member(LONG), member(LONG), member(LONG));
    let mut shares = [0; 3];
    for (demands, expected) in [
        ([20, 20, 20], [4, 4, 4]),
        ([20, 1, 3], [8, 1, 3]),
        ([0, 2, 9], [1, 2, 9]), // the spare token goes somewhere
        ([1, 1, 1], [4, 4, 4]), // all are spread if no member demands them
        ([20, 5, 0], [7, 5, 0]),
    ] {
        // A share that shrinks is given back with the next request, and granted with the one after.
        for _ in 0..3 {
            for (i, share) in [&one, &two, &three].into_iter().enumerate() {
                shares[i] = request(share, shares[i], demands[i]).send(&mut redis, KEY).unwrap();
                assert!(leases(&mut redis).values().sum::<usize>() <= 12);
            }
        }
        let is_spare = demands.iter().sum::<usize>() < 12;
        assert_eq!(shares.iter().sum::<usize>(), 12, "{demands:?}: {shares:?}");
        for (share, expected) in shares.into_iter().zip(expected) {
            assert!(share == expected || is_spare && share.abs_diff(expected) <= 1, "{demands:?}: {shares:?}");
        }
    }
}

#[test]
fn a_lease_covers_tokens_that_are_still_held() {
    let (_server, mut redis) = start(LONG);
    let (old, new) = (member(LONG), member(LONG));
    let mut granted = 0;
    let mut renew = || {
        let ours = old.request();
        let share = ours.send(&mut redis, KEY).unwrap();
        old.accept(&ours, share);
        let lease = leases(&mut redis)[&ours.id];
        assert!(lease >= old.snapshot().outstanding.max(old.snapshot().capacity));
        granted = request(&new, granted, 12).send(&mut redis, KEY).unwrap();
        (lease, granted)
    };
    renew();
    let mut held: Vec<_> = (0..12).map(|_| old.take().unwrap()).collect();
    for returned in 0..6 {
        assert_eq!(renew(), (12 - returned, returned), "no more is granted than was returned");
        held.pop();
    }
    renew();
    assert_eq!(renew(), (6, 6));
    assert_eq!((old.snapshot().capacity, old.snapshot().deficit), (6, 0));
}

#[test]
fn a_late_request_changes_nothing() {
    let (_server, mut redis) = start(LONG);
    let one = member(LONG);
    let late = request(&one, 1, 1);
    let next = request(&one, 9, 12);
    next.send(&mut redis, KEY).unwrap();
    let before: HashMap<String, String> = redis.hgetall(KEY).unwrap();
    for request in [&late, &next] {
        let error = request.send(&mut redis, KEY).unwrap_err();
        assert!(error.to_string().contains("a later request has been answered"), "{error}");
    }
    assert_eq!(redis.hgetall::<_, HashMap<String, String>>(KEY).unwrap(), before);
}

#[test]
fn another_lease_time_is_refused() {
    let (_server, mut redis) = start(LONG);
    let other = Share::new(Terms { lease: LONG.lease * 2, ..LONG }).unwrap();
    let error = other.request().send(&mut redis, KEY).unwrap_err();
    assert!(error.to_string().contains("another lease time"), "{error}");
}

/// What Redis has forgotten may still be in use, so nothing is granted for a lease time.
#[track_caller]
fn grants_nothing_for_a_lease_time(redis: &mut Connection, lost: Instant) {
    let (one, new) = (member(TERMS), member(TERMS));
    assert_eq!(request(&one, 5, 12).send(redis, KEY).unwrap(), 5, "a member keeps what it has");
    assert_eq!(request(&one, 3, 12).send(redis, KEY).unwrap(), 3, "but what it has given up is lost");
    assert_eq!(leases(redis).len(), 1, "no lease from before is left");
    while request(&new, 0, 12).send(redis, KEY).unwrap() == 0 {
        assert!(lost.elapsed() < ms(10_000), "the grace period never ended");
        sleep(ms(5));
    }
    assert!(lost.elapsed() >= LEASE, "the grace period was cut short");
}

#[test]
fn a_restart_without_data_begins_a_grace_period() {
    let (mut server, mut redis) = start(TERMS);
    request(&member(TERMS), 0, 12).send(&mut redis, KEY).unwrap();
    let lost = Instant::now();
    server.restart().unwrap();
    grants_nothing_for_a_lease_time(&mut server.connect().unwrap(), lost);
}

#[test]
fn a_restart_with_old_data_begins_a_grace_period() {
    let (mut server, mut redis) = start(TERMS);
    request(&member(TERMS), 0, 1).send(&mut redis, KEY).unwrap();
    redis::cmd("SAVE").exec(&mut redis).unwrap();
    let lost = Instant::now();
    server.restart().unwrap();
    let mut redis = server.connect().unwrap();
    assert!(redis.exists::<_, bool>(KEY).unwrap(), "the data is back");
    grants_nothing_for_a_lease_time(&mut redis, lost);
}

#[test]
fn a_lost_key_begins_a_grace_period() {
    let (_server, mut redis) = start(TERMS);
    request(&member(TERMS), 0, 12).send(&mut redis, KEY).unwrap();
    let lost = Instant::now();
    redis.del::<_, ()>(KEY).unwrap();
    grants_nothing_for_a_lease_time(&mut redis, lost);
}

#[test]
fn a_member_without_redis_returns_to_the_minimum_in_time() {
    let terms = Terms { minimum: 2, processes: 3, work: ms(200), ..TERMS };
    let (mut redis, share) = (start(terms), Share::new(terms).unwrap());
    assert_eq!(share.snapshot().capacity, 2);
    let begin = Instant::now();
    let request = share.request();
    let granted = request.send(&mut redis.1, KEY).unwrap();
    assert_eq!(granted, 6, "the minimum of three processes is reserved");
    share.accept(&request, granted);
    if begin.elapsed() < LEASE / 2 {
        assert_eq!(share.snapshot().capacity, 8);
    }
    let held: Vec<_> = (0..3).map(|_| share.take().unwrap()).collect();
    while share.snapshot().capacity > 2 {
        assert!(begin.elapsed() < ms(10_000), "the member kept its share");
        sleep(ms(1));
    }
    assert!(begin.elapsed() + terms.work >= LEASE);
    sleep(LEASE);
    assert!(share.is_overdue(), "more than the minimum is held after the end of the lease");
    assert_eq!(share.request().keep, 1, "what is held beyond the minimum is reported");
    drop(held);
    assert!(!share.is_overdue());
    assert_eq!(share.request().keep, 0);
}

/// A request says which tokens a member keeps. That holds for as long as their lease does: then others may be granted them, and Redis
/// may forget that they were.
#[test]
fn an_answer_after_the_lease_of_the_tokens_to_keep_is_refused() {
    // A quarter of the lease before its end, the member stops taking tokens.
    for (sent_after, late) in [(LEASE / 2, LEASE * 3 / 5), (LEASE * 5 / 6, LEASE * 4 / 15)] {
        let (_server, mut redis) = start(TERMS);
        let share = Share::new(Terms { work: LEASE / 4, ..TERMS }).unwrap();
        let first = share.request();
        share.accept(&first, first.send(&mut redis, KEY).unwrap());
        let held: Vec<_> = (0..3).map(|_| share.try_take().unwrap()).collect();
        sleep(sent_after);
        let request = share.request();
        assert!(request.keep >= 3);
        sleep(late);
        drop(held);
        redis.del::<_, ()>(KEY).unwrap();
        let granted = request.send(&mut redis, KEY).unwrap();
        assert_eq!(granted, request.keep, "Redis does not know better");
        share.accept(&request, granted);
        assert_eq!(share.snapshot().capacity, 0, "sent after {sent_after:?}");
        let next = share.request();
        assert_eq!(next.keep, 0);
        share.accept(&next, 5);
        assert_eq!(share.snapshot().capacity, 5, "a request that keeps nothing rests on no lease");
    }
}

#[test]
fn a_lease_is_counted_from_before_the_request_was_sent() {
    let (_server, mut redis) = start(TERMS);
    let share = member(TERMS);
    let request = share.request();
    let granted = request.send(&mut redis, KEY).unwrap();
    assert_eq!(granted, 12);
    let after = std::thread::scope(|scope| {
        let waiter = scope.spawn(|| share.take().is_ok());
        sleep(LEASE);
        share.accept(&request, granted);
        let after = (share.is_overdue(), share.snapshot().capacity, share.request().demand);
        let request = share.request();
        share.accept(&request, request.send(&mut redis, KEY).unwrap());
        assert!(waiter.join().unwrap());
        after
    });
    assert_eq!(after, (false, 0, 1), "the waiter has got no token of the lease that had ended");
}

#[test]
fn only_the_answer_to_the_latest_request_counts() {
    let share = member(LONG);
    let (old, new) = (share.request(), share.request());
    // The new request has told Redis that no token is kept.
    share.accept(&old, 12);
    assert_eq!(share.snapshot().capacity, 0);
    share.accept(&new, 12);
    assert_eq!(share.snapshot().capacity, 12);
}

#[test]
fn a_token_taken_just_before_the_lease_ended_is_not_used_after_it() {
    let (_server, mut redis) = start(TERMS);
    let share = Share::new(Terms { work: ms(100), ..TERMS }).unwrap();
    let request = share.request();
    share.accept(&request, request.send(&mut redis, KEY).unwrap());
    let begin = Instant::now();
    // It waits on the bucket until the lease is over; then nothing else looks at the clock.
    std::thread::scope(|scope| {
        let held: Vec<_> = (0..12).map(|_| share.take().unwrap()).collect();
        let waiter = scope.spawn(|| share.take().is_ok());
        sleep(LEASE / 2);
        if begin.elapsed() < LEASE * 3 / 4 {
            assert_eq!(share.request().demand, 13, "a waiter counts as demand");
        }
        sleep(LEASE / 2);
        drop(held);
        sleep(ms(50));
        assert!(!waiter.is_finished(), "a token of the ended lease was used after {:?}", begin.elapsed());
        let request = share.request();
        share.accept(&request, request.send(&mut redis, KEY).unwrap());
        assert!(waiter.join().unwrap());
    });
}

#[test]
fn members_come_and_leave() {
    let (server, mut redis) = start(TERMS);
    let address = format!("redis://127.0.0.1:{}", server.port());
    let capacity = |member: &Member| member.share().snapshot().capacity;
    let wait = |is_done: &dyn Fn() -> bool| {
        let begin = Instant::now();
        while !is_done() {
            assert!(begin.elapsed() < ms(10_000));
            sleep(ms(5));
        }
    };
    let one = Member::join(&address, KEY, TERMS).unwrap();
    wait(&|| capacity(&one) == 12);
    let two = Member::join(&address, KEY, TERMS).unwrap();
    wait(&|| (capacity(&one), capacity(&two)) == (6, 6));
    wait(&|| one.failure().is_none());

    let share = Arc::clone(one.share());
    let token = share.take().unwrap();
    let leaving = std::thread::spawn(move || one.leave());
    sleep(ms(300));
    assert!(!leaving.is_finished(), "the member left while a token was held");
    assert!(share.try_take().is_err(), "a member that leaves takes a token");
    assert_eq!(leases(&mut redis).len(), 2);
    drop(token);
    leaving.join().unwrap();
    wait(&|| capacity(&two) == 12);
    two.leave();
    assert_eq!(leases(&mut redis).len(), 0);

    drop(server);
    let lonely = Member::join(&address, KEY, TERMS).unwrap();
    wait(&|| lonely.failure().is_some());
    assert_eq!(capacity(&lonely), 0);
    assert!(Member::join("nowhere", KEY, TERMS).is_err());
}

#[test]
fn invalid_terms_are_refused_with_the_numbers() {
    for (terms, reason) in [
        (Terms { limit: 0, ..TERMS }, "the limit 0 is not within 1..="),
        (Terms { limit: usize::MAX, ..TERMS }, "is not within"),
        (Terms { minimum: 1, ..TERMS }, "the number of processes is 0"),
        (Terms { minimum: 5, processes: 3, ..TERMS }, "the minimum 5 for each of 3 processes exceeds the limit 12"),
        (Terms { minimum: usize::MAX, processes: usize::MAX, ..TERMS }, "exceeds the limit"),
        (Terms { lease: ms(1), ..TERMS }, "the lease time 1ms"),
        (Terms { lease: Duration::MAX, ..TERMS }, "the lease time"),
        (Terms { work: LEASE, ..TERMS }, "the work time 1s"),
    ] {
        let error = Share::new(terms).unwrap_err().to_string();
        assert!(error.contains(reason), "{error}");
    }
    assert_eq!(Terms { minimum: 4, processes: 3, ..TERMS }.pool(), Ok(0));
}
