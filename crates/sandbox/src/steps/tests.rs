use super::*;
use crate::policy::{Limits, ListenAddress, Listener};

fn offers(uid: u32) -> Offers {
    let shown = |path: &str| SystemPath {
        path: path.into(),
        entry: SystemEntry::Shown,
    };
    let link = |path: &str, target: &str| SystemPath {
        path: path.into(),
        entry: SystemEntry::Link(target.into()),
    };
    let entry = |name: &str, directory| ProcEntry {
        name: name.to_owned(),
        directory,
    };
    Offers {
        uid,
        gid: uid,
        mounts: uid == 0,
        landlock_abi: 9,
        ipv6: true,
        proc: vec![
            entry("irq", true),
            entry("kallsyms", false),
            entry("meminfo", false),
            entry("sys", true),
        ],
        system: vec![
            shown("/usr"),
            link("/bin", "usr/bin"),
            shown("/etc/ssl/certs"),
        ],
    }
}

fn policy() -> Policy {
    let mut policy = Policy::on_host("box");
    policy.binds.push(Bind {
        source: "/srv/box/home".into(),
        target: "/home/agent".into(),
        access: Access::ReadWrite,
    });
    policy.listeners.push(Listener {
        name: "https".to_owned(),
        address: ListenAddress::Tcp("[::]:443".parse().expect("an address")),
    });
    policy.limits = Limits {
        processes: Some(512),
        ..Limits::default()
    };
    policy
}

fn roots() -> Policy {
    Policy {
        host_user: Some(HostUser {
            uid: 200_001,
            gid: 200_001,
        }),
        ..policy()
    }
}

fn planned(policy: &Policy, offers: &Offers) -> Plan {
    plan(policy, offers).unwrap_or_else(|error| panic!("{error}"))
}

fn position(plan: &Plan, is: impl Fn(&Step) -> bool) -> usize {
    let position = plan.inside.iter().position(is);
    position.unwrap_or_else(|| panic!("no such step inside:\n{plan}"))
}

#[test]
fn a_plain_users_sandbox_is_these_steps() {
    insta::assert_snapshot!(planned(&policy(), &offers(1001)));
}

#[test]
fn a_sandbox_of_roots_is_these_steps() {
    insta::assert_snapshot!(planned(&roots(), &offers(0)));
}

#[test]
fn a_sandbox_over_a_system_of_its_own_is_these_steps() {
    let policy = Policy {
        root: Root::Directory {
            system: "/srv/system".into(),
            changes: "/srv/box/changes".into(),
        },
        ..policy()
    };
    insta::assert_snapshot!(planned(&policy, &offers(1001)));
}

#[test]
fn root_becomes_somebody_else_before_there_is_a_namespace() {
    let plan = planned(&roots(), &offers(0));
    let place = |is: fn(&Step) -> bool| plan.outside.iter().position(is);
    let becomes = place(|step| matches!(step, Step::BecomeUser(_)));
    let namespace = place(|step| matches!(step, Step::UserNamespace { .. }));
    assert!(becomes.is_some() && becomes < namespace);
}

#[test]
fn root_of_a_container_that_may_not_mount_opens_nothing_outside() {
    let offers = Offers {
        mounts: false,
        ..offers(0)
    };
    let plan = planned(&roots(), &offers);
    let opens = |step: &Step| matches!(step, Step::OpenTree { .. });
    assert!(!plan.outside.iter().any(opens) && plan.inside.iter().any(opens));
    assert!(matches!(plan.outside.first(), Some(Step::BecomeUser(_))));
}

#[test]
fn system_calls_are_restricted_last_and_nothing_is_mounted_once_capabilities_are_gone() {
    for (policy, offers) in [(policy(), offers(1001)), (roots(), offers(0))] {
        let plan = planned(&policy, &offers);
        assert_eq!(plan.inside.last(), Some(&Step::Seccomp));
        let dropped = position(&plan, |step| *step == Step::DropCapabilities);
        let later = plan.inside.iter().skip(dropped).map(Step::layer);
        let mounting = [Layer::Filesystem, Layer::Proc, Layer::Network];
        assert!(later.into_iter().all(|layer| !mounting.contains(&layer)));
    }
}

#[test]
fn every_layer_is_in_every_plan() {
    let plan = planned(&roots(), &offers(0));
    let steps = || plan.outside.iter().chain(&plan.inside);
    for layer in [
        Layer::Capabilities,
        Layer::Filesystem,
        Layer::Identity,
        Layer::Landlock,
        Layer::Launcher,
        Layer::Limits,
        Layer::Namespaces,
        Layer::Network,
        Layer::NoNewPrivileges,
        Layer::Proc,
        Layer::Seccomp,
        Layer::UserNamespace,
    ] {
        assert!(steps().any(|step| step.layer() == layer), "{layer}");
    }
}

#[test]
fn the_newest_landlock_that_is_understood_is_used_and_none_is_an_error() {
    let abi = |offered| {
        let offers = Offers {
            landlock_abi: offered,
            ..offers(1001)
        };
        let plan = plan(&policy(), &offers).ok()?;
        plan.inside.into_iter().find_map(|step| match step {
            Step::Landlock { abi, .. } => Some(abi),
            _ => None,
        })
    };
    assert_eq!([abi(9), abi(4), abi(0)], [Some(7), Some(4), None]);
}

#[test]
fn what_the_kernel_adds_to_proc_is_hidden_unless_it_is_listed() {
    let mut offers = offers(1001);
    offers.proc.push(ProcEntry {
        name: "tomorrow".to_owned(),
        directory: false,
    });
    let plan = planned(&policy(), &offers);
    let hidden: Vec<_> = plan
        .inside
        .iter()
        .filter_map(|step| match step {
            Step::HideProc { name, .. } => Some(name.as_str()),
            _ => None,
        })
        .collect();
    assert_eq!(hidden, ["irq", "kallsyms", "tomorrow"]);
}

#[test]
fn without_ipv6_the_address_for_everybody_is_ipv4s() {
    let offers = Offers {
        ipv6: false,
        ..offers(1001)
    };
    let plan = planned(&policy(), &offers);
    let lines: Vec<_> = plan.inside.iter().map(Step::to_string).collect();
    assert!(lines.contains(&"listen on tcp 0.0.0.0:443 as \"https\"".to_owned()));
    assert!(lines.contains(&"route every address to the loopback (IPv4)".to_owned()));
}

#[test]
fn a_policy_for_another_user_than_ones_own_takes_root() {
    let message = |policy: &Policy, uid| match plan(policy, &offers(uid)) {
        Err(error) => error.to_string(),
        Ok(plan) => panic!("expected an error, got\n{plan}"),
    };
    assert_eq!(
        message(&policy(), 0),
        "the sandbox's policy is not possible: host_user: expected an unprivileged user to become, since the supervisor \
         is root, got none"
    );
    assert_eq!(
        message(&roots(), 1001),
        "the sandbox's policy is not possible: host_user: expected 1001, since only root can become another user, got \
         200001"
    );
}
