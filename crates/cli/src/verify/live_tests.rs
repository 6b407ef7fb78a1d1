//! What is no live route is found out, before and after it is asked.

use farrier_sim::{Options, Persona};

use super::*;
use crate::stage::play;

#[tokio::test]
async fn e2e_03_an_address_that_anyone_on_the_way_could_answer_is_refused() {
    for url in [
        "http://api.moonshot.ai/v1",
        "api.moonshot.ai",
        "",
        "ftp://api.moonshot.ai/v1",
    ] {
        let refused = is_elsewhere(url).await.expect_err("refused");
        assert_eq!(refused, NotLive::NotHttps(url.to_owned()));
    }
}

#[tokio::test]
async fn e2e_03_an_address_of_ours_is_refused() {
    for host in [
        "127.0.0.1",
        "localhost",
        "[::1]",
        "10.1.2.3",
        "192.168.0.9",
        "[fd00::1]",
    ] {
        let url = format!("https://{host}:8443/v1");
        let refused = is_elsewhere(&url).await.expect_err("refused");
        assert!(matches!(refused, NotLive::Here { .. }), "{refused}");
    }
}

#[test]
fn addresses_that_networks_keep_to_themselves_are_ours() {
    for ours in [
        "127.8.8.8",
        "0.0.0.0",
        "169.254.169.254",
        "172.16.0.1",
        "100.64.0.1",
        "::ffff:127.0.0.1",
        "fe80::1",
        "::",
    ] {
        assert!(is_ours(ours.parse().expect("an address")), "{ours}");
    }
    for other in ["8.8.8.8", "100.128.0.1", "2606:4700::1111"] {
        assert!(!is_ours(other.parse().expect("an address")), "{other}");
    }
}

#[tokio::test]
async fn e2e_03_a_model_that_is_played_knows_no_sum() {
    let persona = Persona::named("kimi-k2.6").expect("an embedded persona");
    let sim = play(persona, Options::default()).await.expect("it plays");
    let url = base_url(sim.addr());
    let (a, b) = (chance().expect("a number"), chance().expect("a number"));
    let answer = ask(&url, "kimi-k2.6", a, b).await.expect("an answer");
    assert!(matches!(is_sum(&answer, a, b), Err(NotLive::NoSum(_))));
    sim.stop().await;
}

#[test]
fn only_the_sum_is_taken_for_the_sum() {
    let text = |text: &str| Answer::Text {
        text: text.to_owned(),
    };
    let (a, b) = (12_345_678, 87_654_000);
    for right in ["99999678", "It is 99,999,678.", "99 999 678"] {
        assert_eq!(is_sum(&text(right), a, b), Ok(()), "{right}");
    }
    for wrong in ["", "12345678 + 87654000", "99999679"] {
        assert!(is_sum(&text(wrong), a, b).is_err(), "{wrong}");
    }
    let refused = Answer::Refused {
        status: 401,
        message: "99999678".to_owned(),
    };
    assert!(is_sum(&refused, a, b).is_err());
}

#[test]
fn numbers_to_ask_for_have_eight_digits_and_differ() {
    let numbers: Vec<u32> = (0..64).map(|_| chance().expect("a number")).collect();
    assert!(
        numbers
            .iter()
            .all(|number| (10_000_000..100_000_000).contains(number))
    );
    assert!(numbers.iter().any(|number| *number != numbers[0]));
}
