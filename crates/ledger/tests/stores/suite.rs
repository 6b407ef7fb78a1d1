//! What every ledger must do, whatever it is kept in. A store's own tests open one, hand it over,
//! and close it.
//!
//! Each part uses scopes of its own, so that the parts do not meet and the ledger need not be
//! empty.

use std::collections::HashSet;

use bytes::Bytes;
use farrier_ledger::{
    Entry, Key, Ledger, LedgerError, MAX_CANDIDATES, MAX_ENTRY_KEYS, MAX_RECALL_KEYS, Scope, Stats,
    Stored,
};

/// A key that differs by this number.
pub(crate) fn key(number: u64) -> Key {
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&number.to_le_bytes());
    Key(bytes)
}

/// An entry of these keys and this text.
pub(crate) fn entry(keys: &[u64], value: impl Into<String>) -> Entry {
    Entry {
        keys: keys.iter().copied().map(key).collect(),
        value: Bytes::from(value.into()),
    }
}

/// What one key gives, as texts.
pub(crate) async fn recall_one(ledger: &impl Ledger, scope: &Scope, number: u64) -> Vec<String> {
    let mut found = ledger.recall(scope, &[key(number)]).await.unwrap().values;
    assert_eq!(found.len(), 1, "one key, one list");
    found
        .remove(0)
        .into_iter()
        .map(|value| String::from_utf8(value.to_vec()).unwrap())
        .collect()
}

/// All of it.
pub(crate) async fn suite(ledger: &impl Ledger) {
    ledger.ready().await.unwrap();
    what_is_recorded_is_found_by_each_of_its_keys(ledger).await;
    answers_come_in_the_order_asked_and_newest_first(ledger).await;
    at_most_the_newest_candidates_are_returned(ledger).await;
    no_scope_sees_another(ledger).await;
    values_of_any_bytes_come_back_as_they_were(ledger).await;
    keys_are_counted_and_bounded(ledger).await;
    many_at_once_are_all_found(ledger).await;
    a_record_that_nobody_waits_for_harms_nothing(ledger).await;
    recording_again_what_is_stored_crowds_nothing_out(ledger).await;
    hits_and_misses_are_counted(ledger).await;
}

async fn what_is_recorded_is_found_by_each_of_its_keys(ledger: &impl Ledger) {
    let scope = Scope::new("suite: each key");
    let stored = ledger.record(&scope, entry(&[1, 2, 2, 1], "turn")).await;
    assert_eq!(stored.unwrap(), Stored::Durable);
    assert_eq!(recall_one(ledger, &scope, 1).await, ["turn"]);
    assert_eq!(recall_one(ledger, &scope, 2).await, ["turn"]);
    assert!(recall_one(ledger, &scope, 3).await.is_empty());
}

async fn answers_come_in_the_order_asked_and_newest_first(ledger: &impl Ledger) {
    let scope = Scope::new("suite: order");
    for text in ["first", "second", "third"] {
        ledger.record(&scope, entry(&[1], text)).await.unwrap();
    }
    ledger.record(&scope, entry(&[2], "other")).await.unwrap();
    let found = ledger
        .recall(&scope, &[key(2), key(9), key(1), key(2)])
        .await
        .unwrap()
        .values;
    let expected: [&[&str]; 4] = [&["other"], &[], &["third", "second", "first"], &["other"]];
    assert_eq!(found, expected);
    assert!(ledger.recall(&scope, &[]).await.unwrap().values.is_empty());
}

async fn at_most_the_newest_candidates_are_returned(ledger: &impl Ledger) {
    let scope = Scope::new("suite: candidates");
    let count = MAX_CANDIDATES + 3;
    for number in 0..count {
        ledger
            .record(&scope, entry(&[1], number.to_string()))
            .await
            .unwrap();
    }
    let newest: Vec<String> = (0..count)
        .rev()
        .take(MAX_CANDIDATES)
        .map(|number| number.to_string())
        .collect();
    assert_eq!(recall_one(ledger, &scope, 1).await, newest);
}

async fn no_scope_sees_another(ledger: &impl Ledger) {
    let (mine, theirs) = (Scope::new("suite: mine"), Scope::new("suite: theirs"));
    ledger.record(&theirs, entry(&[1], "theirs")).await.unwrap();
    assert!(recall_one(ledger, &mine, 1).await.is_empty());
    ledger.record(&mine, entry(&[1], "mine")).await.unwrap();
    assert_eq!(recall_one(ledger, &mine, 1).await, ["mine"]);
    assert_eq!(recall_one(ledger, &theirs, 1).await, ["theirs"]);
}

async fn values_of_any_bytes_come_back_as_they_were(ledger: &impl Ledger) {
    let scope = Scope::new("suite: bytes");
    let every_byte: Vec<u8> = (0..=255).collect();
    let values = [
        Bytes::new(),
        Bytes::from(every_byte),
        Bytes::from(vec![0xa5; 1 << 20]),
    ];
    for (number, value) in (0..).zip(&values) {
        ledger
            .record(
                &scope,
                Entry {
                    keys: vec![key(number)],
                    value: value.clone(),
                },
            )
            .await
            .unwrap();
    }
    for (number, value) in (0..).zip(&values) {
        assert_eq!(
            ledger.recall(&scope, &[key(number)]).await.unwrap().values,
            [[value.clone()]]
        );
    }
}

async fn keys_are_counted_and_bounded(ledger: &impl Ledger) {
    let scope = Scope::new("suite: key counts");
    let numbers: Vec<u64> = (0..=MAX_RECALL_KEYS as u64).collect();

    let most = entry(&numbers[..MAX_ENTRY_KEYS], "most");
    ledger.record(&scope, most).await.unwrap();
    assert_eq!(
        recall_one(ledger, &scope, MAX_ENTRY_KEYS as u64 - 1).await,
        ["most"]
    );
    for refused in [
        entry(&[], "none"),
        entry(&numbers[..=MAX_ENTRY_KEYS], "too many"),
    ] {
        let error = ledger.record(&scope, refused).await.unwrap_err();
        assert!(
            matches!(
                error,
                LedgerError::KeyCount {
                    max: MAX_ENTRY_KEYS,
                    ..
                }
            ),
            "{error}"
        );
    }

    let keys: Vec<Key> = numbers.iter().copied().map(key).collect();
    let found = ledger
        .recall(&scope, &keys[..MAX_RECALL_KEYS])
        .await
        .unwrap()
        .values;
    assert_eq!(
        found.iter().filter(|found| !found.is_empty()).count(),
        MAX_ENTRY_KEYS
    );
    let error = ledger.recall(&scope, &keys).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "expected recall of 1 to 16384 keys, got 16385"
    );
}

async fn many_at_once_are_all_found(ledger: &impl Ledger) {
    let scope = &Scope::new("suite: many");
    let before = ledger.stats();
    together((0..200).map(|number| ledger.record(scope, entry(&[number], number.to_string()))))
        .await;
    let found = together((0..200).map(|number| recall_one(ledger, scope, number))).await;
    let distinct: HashSet<_> = found.into_iter().flatten().collect();
    assert_eq!(distinct.len(), 200);
    assert_eq!(ledger.stats().recorded - before.recorded, 200);
}

async fn a_record_that_nobody_waits_for_harms_nothing(ledger: &impl Ledger) {
    let scope = Scope::new("suite: dropped");
    for number in 0..20 {
        let mut record = ledger.record(&scope, entry(&[1], number.to_string()));
        let polled_once =
            std::future::poll_fn(|context| std::task::Poll::Ready(record.as_mut().poll(context)));
        let _left = polled_once.await;
    }
    ledger.record(&scope, entry(&[1], "last")).await.unwrap();
    let found = recall_one(ledger, &scope, 1).await;
    assert_eq!(found[0], "last");
    let others: Vec<u32> = found[1..]
        .iter()
        .map(|number| number.parse().unwrap())
        .collect();
    assert!(
        others.is_sorted_by(|newer, older| newer > older),
        "{others:?}"
    );
}

async fn recording_again_what_is_stored_crowds_nothing_out(ledger: &impl Ledger) {
    let scope = Scope::new("suite: again");
    ledger
        .record(&scope, entry(&[1, 2], "other"))
        .await
        .unwrap();
    for _ in 0..=MAX_CANDIDATES {
        ledger.record(&scope, entry(&[2, 1], "same")).await.unwrap();
    }
    assert_eq!(recall_one(ledger, &scope, 1).await, ["same", "other"]);
    assert_eq!(recall_one(ledger, &scope, 2).await, ["same", "other"]);
    // Under other keys it is another.
    ledger.record(&scope, entry(&[1], "same")).await.unwrap();
    assert_eq!(recall_one(ledger, &scope, 1).await.len(), 3);
}

async fn hits_and_misses_are_counted(ledger: &impl Ledger) {
    let scope = Scope::new("suite: counts");
    let before = ledger.stats();
    ledger.record(&scope, entry(&[1, 2], "turn")).await.unwrap();
    ledger
        .recall(&scope, &[key(1), key(2), key(3)])
        .await
        .unwrap();
    let after = ledger.stats();
    assert_eq!(after.recorded - before.recorded, 1);
    // A store that others write to as well does not say what it holds.
    if after.entries.is_some() {
        let ((entries_before, bytes_before), (entries, bytes)) = (held(before), held(after));
        assert_eq!(entries - entries_before, 1);
        assert!(bytes > bytes_before);
    }
    assert_eq!(
        (
            after.recall_hits - before.recall_hits,
            after.recall_misses - before.recall_misses
        ),
        (2, 1)
    );
}

/// How many entries a store holds, and what they weigh; of a store that knows.
pub(crate) fn held(stats: Stats) -> (u64, u64) {
    (stats.entries.unwrap(), stats.bytes.unwrap())
}

/// Awaits all of them at the same time, on one task.
pub(crate) async fn together<F: Future>(futures: impl Iterator<Item = F>) -> Vec<F::Output> {
    let mut waiting: Vec<_> = futures.map(|future| (Box::pin(future), None)).collect();
    std::future::poll_fn(|context| {
        let mut pending = false;
        for (future, output) in waiting.iter_mut().filter(|(_, output)| output.is_none()) {
            match future.as_mut().poll(context) {
                std::task::Poll::Ready(ready) => *output = Some(ready),
                std::task::Poll::Pending => pending = true,
            }
        }
        if pending {
            std::task::Poll::Pending
        } else {
            std::task::Poll::Ready(())
        }
    })
    .await;
    waiting
        .into_iter()
        .filter_map(|(_, output)| output)
        .collect()
}
