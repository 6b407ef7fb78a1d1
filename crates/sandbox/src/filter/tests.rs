use std::collections::{BTreeMap, BTreeSet};

use super::*;

const ARCHITECTURES: [&str; 2] = ["aarch64", "x86_64"];

fn table() -> Table {
    serde_json::from_str(RULES).expect("the table is JSON of this shape")
}

fn conditions(rule: &Rule) -> Vec<Value> {
    match &rule.args {
        Some(Value::Array(conditions)) => conditions.clone(),
        Some(other) => panic!("{}: args are no list: {other}", rule.syscall),
        None => Vec::new(),
    }
}

#[test]
fn the_table_compiles_for_every_architecture_that_farrier_ships_for() {
    for arch in ARCHITECTURES {
        let programs = compile(arch).unwrap_or_else(|error| panic!("{arch}: {error:?}"));
        assert_eq!(programs.len(), PROGRAMS.len());
        // The kernel takes at most 4,096 instructions (BPF_MAXINSNS).
        for program in programs {
            assert!((1..4096).contains(&program.0.len()), "{arch}");
        }
    }
}

#[test]
fn an_architecture_without_a_table_is_an_error_and_not_an_empty_filter() {
    let error = compile("s390x").expect_err("there is no such table");
    assert_eq!(
        error.to_string(),
        "there is no table of system calls for the architecture s390x"
    );
}

#[test]
fn packing_loses_nothing_of_a_program() {
    let program = vec![sock_filter {
        code: 0x1234,
        jt: 5,
        jf: 6,
        k: 0x789a_bcde,
    }];
    assert_eq!(Program::pack(&program).unpack(), program);
}

#[test]
fn every_rule_says_why_it_is_there() {
    let Table { allow, refuse } = table();
    for rule in allow.iter().chain(&refuse) {
        let words = rule.reason.split_whitespace().count();
        assert!(words >= 1 && rule.reason.len() > 3, "{}", rule.syscall);
    }
}

#[test]
fn no_rule_is_dead_because_another_of_its_list_covers_it() {
    let Table { allow, refuse } = table();
    for rules in [&allow, &refuse] {
        let mut by_name: BTreeMap<&str, Vec<Vec<Value>>> = BTreeMap::new();
        for rule in rules {
            by_name
                .entry(&rule.syscall)
                .or_default()
                .push(conditions(rule));
        }
        for (name, alternatives) in by_name {
            let unconditional = alternatives.iter().filter(|one| one.is_empty()).count();
            assert!(
                unconditional == 0 || alternatives.len() == 1,
                "{name}: a rule without conditions covers its others"
            );
            let distinct: BTreeSet<String> = alternatives
                .iter()
                .map(|one| Value::from(one.clone()).to_string())
                .collect();
            assert_eq!(
                distinct.len(),
                alternatives.len(),
                "{name}: a rule is there twice"
            );
        }
    }
}

#[test]
fn no_rule_is_dead_because_the_other_list_refuses_all_it_allows() {
    let Table { allow, refuse } = table();
    let refused: BTreeSet<&str> = refuse
        .iter()
        .filter(|rule| rule.args.is_none())
        .map(|rule| rule.syscall.as_str())
        .collect();
    for rule in &allow {
        assert!(!refused.contains(rule.syscall.as_str()), "{}", rule.syscall);
    }
}

#[test]
fn a_call_that_is_refused_under_conditions_is_allowed_under_others() {
    let Table { allow, refuse } = table();
    let allowed: BTreeSet<&str> = allow.iter().map(|rule| rule.syscall.as_str()).collect();
    for rule in refuse.iter().filter(|rule| rule.args.is_some()) {
        assert!(
            allowed.contains(rule.syscall.as_str()),
            "{}: its conditions do nothing, all of it is refused anyhow",
            rule.syscall
        );
    }
}

#[test]
fn a_rule_for_one_architecture_names_a_call_that_the_other_lacks() {
    let Table { allow, refuse } = table();
    for mut rule in allow.into_iter().chain(refuse) {
        let Some(only) = rule.only.take() else {
            continue;
        };
        let other = ARCHITECTURES.into_iter().find(|arch| *arch != only);
        let target = TargetArch::try_from(other.expect("one of two")).expect("known");
        let filters = json!({ "one": {
            "mismatch_action": { "errno": 1 },
            "match_action": "allow",
            "filter": [rule_of(rule.clone())],
        }});
        let text = serde_json::to_vec(&filters).expect("JSON");
        assert!(
            seccompiler::compile_from_json(text.as_slice(), target).is_err(),
            "{}: both architectures have it, `only` leaves it out of one",
            rule.syscall
        );
    }
}
