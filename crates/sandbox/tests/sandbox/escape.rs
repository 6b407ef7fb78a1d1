//! The ways out of a sandbox that are known, each tried from inside, as root's sandbox and as a plain user's.
//!
//! `escape.py` tries; what is right is here. A refusal that another layer would answer as well still has to be the
//! expected one: a changed answer means that a layer has changed.

use std::net::{TcpListener, UdpSocket};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::process::Command;
use std::time::Duration;

use farrier_sandbox::{Access, Bind, Exec, Policy};
use serde_json::json;
use tokio::io::AsyncReadExt;

use crate::support::{Bench, Supervisor, Who, whoever_this_is};

/// What a test plants outside and looks for inside.
const CANARY: &str = "canary-3f9a1c77";

/// One test per line for each user: its name, what is tried, with what, and what is to come of it.
macro_rules! refused {
    ($($name:ident: $action:literal $argument:literal => $expected:literal,)*) => {
        $(fn $name(who: Who) { assert_eq!(tried(who, $action, $argument), Some($expected.to_owned()).filter(|_| can(who))); })*
        for_both! { $($name)* }
    };
}

mod system_calls {
    use super::*;

    refused! {
        acct_is_refused: "call" "acct" => "EPERM",
        add_key_is_refused: "call" "add_key" => "EPERM",
        bpf_is_refused: "call" "bpf" => "EPERM",
        chroot_is_refused: "call" "chroot" => "EPERM",
        clone3_is_unknown: "call" "clone3" => "ENOSYS",
        clone_with_a_mount_namespace_is_refused: "clone" "0x20000" => "EPERM",
        clone_with_a_network_namespace_is_refused: "clone" "0x40000000" => "EPERM",
        clone_with_a_user_namespace_is_refused: "clone" "0x10000000" => "EPERM",
        delete_module_is_refused: "call" "delete_module" => "EPERM",
        finit_module_is_refused: "call" "finit_module" => "EPERM",
        fsopen_is_refused: "call" "fsopen" => "EPERM",
        init_module_is_refused: "call" "init_module" => "EPERM",
        io_uring_is_refused: "call" "io_uring_setup" => "EPERM",
        kcmp_is_refused: "call" "kcmp" => "EPERM",
        kexec_is_refused: "call" "kexec_load" => "EPERM",
        keyctl_is_refused: "call" "keyctl" => "EPERM",
        mount_is_refused: "call" "mount" => "EPERM",
        mount_setattr_is_refused: "call" "mount_setattr" => "EPERM",
        move_mount_is_refused: "call" "move_mount" => "EPERM",
        name_to_handle_at_is_refused: "call" "name_to_handle_at" => "EPERM",
        open_by_handle_at_is_refused: "call" "open_by_handle_at" => "EPERM",
        open_tree_is_refused: "call" "open_tree" => "EPERM",
        perf_event_open_is_refused: "call" "perf_event_open" => "EPERM",
        pidfd_getfd_is_refused: "pidfd_getfd" "" => "EPERM",
        pivot_root_is_refused: "call" "pivot_root" => "EPERM",
        process_vm_readv_is_refused: "call" "process_vm_readv" => "EPERM",
        process_vm_writev_is_refused: "call" "process_vm_writev" => "EPERM",
        ptrace_is_refused: "call" "ptrace" => "EPERM",
        reboot_is_refused: "call" "reboot" => "EPERM",
        request_key_is_refused: "call" "request_key" => "EPERM",
        setgroups_is_refused: "call" "setgroups" => "EPERM",
        sethostname_is_refused: "call" "sethostname" => "EPERM",
        setns_into_a_mount_namespace_is_refused: "setns" "mnt" => "EPERM",
        setns_into_a_user_namespace_is_refused: "setns" "user" => "EPERM",
        settimeofday_is_refused: "call" "settimeofday" => "EPERM",
        swapon_is_refused: "call" "swapon" => "EPERM",
        syslog_is_refused: "call" "syslog" => "EPERM",
        umount_is_refused: "call" "umount2" => "EPERM",
        unshare_of_mounts_is_refused: "unshare" "0x20000" => "EPERM",
        unshare_of_network_is_refused: "unshare" "0x40000000" => "EPERM",
        unshare_of_users_is_refused: "unshare" "0x10000000" => "EPERM",
        userfaultfd_is_refused: "call" "userfaultfd" => "EPERM",
        a_call_that_nobody_has_is_unknown: "unknown_call" "" => "ENOSYS",
        a_call_by_the_32_bit_table_kills: "old_table" "" => "killed by 31",
        a_call_by_the_x32_table_is_unknown: "x32_table" "" => "ENOSYS",
        a_personality_that_makes_data_executable_is_unknown: "personality" "0x400000" => "ENOSYS",
    }
}

mod sockets {
    use super::*;

    refused! {
        af_alg_is_refused: "make_socket" "38,5,0" => "EPERM",
        af_bluetooth_is_refused: "make_socket" "31,3,0" => "EPERM",
        af_key_is_refused: "make_socket" "15,3,2" => "EPERM",
        af_packet_is_refused: "make_socket" "17,3,0" => "EPERM",
        af_tipc_is_refused: "make_socket" "30,1,0" => "EPERM",
        af_vsock_is_refused: "make_socket" "40,1,0" => "EPERM",
        af_xdp_is_refused: "make_socket" "44,3,0" => "EPERM",
        icmp_is_refused: "make_socket" "2,2,1" => "EACCES",
        netlink_for_audit_is_refused: "make_socket" "16,3,9" => "EPERM",
        netlink_for_netfilter_is_refused: "make_socket" "16,3,12" => "EPERM",
        raw_ipv4_is_refused: "make_socket" "2,3,1" => "EPERM",
        raw_ipv6_is_refused: "make_socket" "10,3,58" => "EPERM",
        a_route_cannot_be_added: "add_route" "" => "EPERM",
        the_loopback_is_the_only_interface: "interfaces" "" => "lo",
        the_metadata_address_leads_nowhere: "connect" "169.254.169.254 80" => "ECONNREFUSED",
        the_internet_leads_nowhere: "connect" "1.1.1.1 443" => "ECONNREFUSED",
        datagrams_to_the_internet_lead_nowhere: "datagram" "1.1.1.1 53" => "ECONNREFUSED",
    }
}

mod files {
    use super::*;

    refused! {
        a_block_device_cannot_be_made: "device" "block" => "EACCES",
        a_character_device_cannot_be_made: "device" "character" => "EACCES",
        core_pattern_cannot_be_written: "open_write" "/proc/sys/kernel/core_pattern" => "EACCES",
        sysctls_of_the_host_cannot_be_written: "open_write" "/proc/sys/kernel/threads-max" => "EACCES",
        the_limit_on_namespaces_cannot_be_raised: "open_write" "/proc/sys/user/max_user_namespaces" => "EACCES",
        the_limit_on_namespaces_is_none: "contents" "/proc/sys/user/max_user_namespaces" => "b'0\\n'",
        memory_of_the_kernel_is_not_there: "open_read" "/dev/mem" => "ENOENT",
        messages_of_the_kernel_are_not_there: "open_read" "/dev/kmsg" => "ENOENT",
        symbols_of_the_kernel_are_hidden: "hidden" "/proc/kallsyms" => "hidden",
        the_kernels_configuration_is_hidden: "hidden" "/proc/config.gz" => "hidden",
        memory_of_the_kernel_is_hidden: "hidden" "/proc/kcore" => "hidden",
        keys_are_hidden: "hidden" "/proc/keys" => "hidden",
        timers_are_hidden: "hidden" "/proc/timer_list" => "hidden",
        the_kernels_command_line_is_hidden: "hidden" "/proc/cmdline" => "hidden",
        the_key_that_reboots_is_hidden: "hidden" "/proc/sysrq-trigger" => "hidden",
        interrupts_are_hidden: "hidden" "/proc/irq" => "hidden",
        buses_are_hidden: "hidden" "/proc/bus" => "hidden",
        pressure_on_the_host_is_hidden: "hidden" "/proc/pressure" => "hidden",
        sys_is_not_there: "listing" "/sys" => "ENOENT",
        passwords_are_not_there: "open_read" "/etc/shadow" => "ENOENT",
        the_hosts_root_is_not_there: "listing" "/root" => "ENOENT",
        the_hosts_homes_are_not_there: "listing" "/home" => "agent",
        the_hosts_sockets_are_not_there: "listing" "/run" => "nothing",
        the_hosts_shared_memory_is_not_there: "listing" "/dev/shm" => "nothing",
        the_hosts_temporary_files_are_not_there: "listing" "/tmp" => "nothing",
        usr_cannot_be_written: "create" "/usr/bin/new" => "EROFS",
        etc_cannot_be_written: "create" "/etc/new" => "EROFS",
        the_root_cannot_be_written: "create" "/new" => "EROFS",
        dev_cannot_be_written: "create" "/dev/new" => "EROFS",
    }
}

mod processes {
    use super::*;

    refused! {
        the_first_process_is_not_seen: "open_read" "/proc/1/environ" => "ENOENT",
        memory_of_the_first_process_is_not_there: "open_write" "/proc/1/mem" => "ENOENT",
        the_first_process_survives_signals: "kill_first" "" => "survived",
        only_the_sandboxes_own_processes_are_seen: "processes" "" => "python3",
        there_is_no_capability: "capabilities" "" =>
            "0000000000000000 0000000000000000 0000000000000000 0000000000000000 0000000000000000",
        there_are_no_new_privileges: "status" "NoNewPrivs" => "1",
        system_calls_are_filtered: "status" "Seccomp" => "2",
        there_are_three_descriptors: "descriptors" "" => "0 1 2",
        there_are_no_core_dumps: "core_dumps" "" => "not dumped, (0, 0), stays",
        nobody_can_become_root: "set_user" "" => "EINVAL",
        typing_into_a_terminal_is_refused: "terminal" "0x5412" => "EPERM",
        typing_into_a_terminal_with_high_bits_set_is_refused: "terminal" "0x100005412" => "EPERM",
        the_consoles_own_commands_are_refused: "terminal" "0x541c" => "EPERM",
        the_program_that_started_us_cannot_be_overwritten: "overwrite_program" "" => "ENOENT EACCES",
    }
}

mod arranged {
    use super::*;

    for_both! {
        a_set_user_id_program_gives_no_privileges
        an_abstract_socket_of_the_host_cannot_be_reached
        a_port_of_the_hosts_loopback_cannot_be_reached
        a_datagram_does_not_reach_the_host
        the_supervisors_environment_is_nowhere
        shared_memory_of_the_host_is_not_there
        every_namespace_is_another_than_the_hosts
        its_control_groups_are_all_that_it_sees_of_any
        the_first_process_does_not_execute_itself_for_somebody
        a_symbolic_link_in_a_binds_source_is_refused
        a_symbolic_link_that_a_sandbox_planted_at_a_binds_target_is_refused
        a_sandbox_that_kills_everything_does_not_reach_another_command_of_the_host
    }

    fn a_set_user_id_program_gives_no_privileges(who: Who) {
        let Some(bench) = Bench::new(who) else { return };
        // Root's if root makes it; else the plain user's own, which is no different from anybody's.
        let source = bench.path().join("tools");
        std::fs::create_dir(&source).unwrap();
        std::fs::set_permissions(&source, PermissionsExt::from_mode(0o755)).unwrap();
        let copy = source.join("id");
        let copied = Command::new("cp").arg("/usr/bin/id").arg(&copy).status();
        assert!(copied.unwrap().success());
        std::fs::set_permissions(&copy, PermissionsExt::from_mode(0o6755)).unwrap();
        let mut policy = with_probe(&bench);
        policy.binds.push(bind(&source, "/tools"));
        assert_eq!(
            attempt(&bench, &policy, "effective_user", "/tools/id"),
            "1000"
        );
    }

    fn an_abstract_socket_of_the_host_cannot_be_reached(who: Who) {
        let Some(bench) = Bench::new(who) else { return };
        let name = format!("farrier-{}", bench.path().display());
        let address = SocketAddr::from_abstract_name(&name).unwrap();
        let _listener = UnixListener::bind_addr(&address).unwrap();
        let policy = with_probe(&bench);
        assert_eq!(attempt(&bench, &policy, "abstract", &name), "ECONNREFUSED");
    }

    fn a_port_of_the_hosts_loopback_cannot_be_reached(who: Who) {
        let Some(bench) = Bench::new(who) else { return };
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let policy = with_probe(&bench);
        let outcome = attempt(&bench, &policy, "connect", &format!("127.0.0.1 {port}"));
        assert_eq!(outcome, "ECONNREFUSED");
        listener.set_nonblocking(true).unwrap();
        assert!(listener.accept().is_err(), "something has connected");
    }

    fn a_datagram_does_not_reach_the_host(who: Who) {
        let Some(bench) = Bench::new(who) else { return };
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let port = socket.local_addr().unwrap().port();
        let policy = with_probe(&bench);
        let outcome = attempt(&bench, &policy, "datagram", &format!("127.0.0.1 {port}"));
        assert_eq!(outcome, "ECONNREFUSED");
        socket
            .set_read_timeout(Some(Duration::from_millis(1)))
            .unwrap();
        assert!(socket.recv(&mut [0; 8]).is_err(), "something has arrived");
    }

    fn the_supervisors_environment_is_nowhere(who: Who) {
        let Some(bench) = Bench::new(who) else { return };
        let mut command = bench.supervisor();
        command.env("SECRET", CANARY);
        let backwards: String = CANARY.chars().rev().collect();
        let argv = ["/usr/bin/python3", "/probe/escape.py", "search", &backwards];
        let script = json!({ "policy": with_probe(&bench), "commands": [{ "argv": argv }] });
        let mut supervisor = Supervisor::start(command, &script);
        let report = supervisor.report();
        supervisor.end();
        assert_eq!(report.outcomes[0].stdout, "nothing\n");
    }

    fn shared_memory_of_the_host_is_not_there(who: Who) {
        let Some(bench) = Bench::new(who) else { return };
        let policy = with_probe(&bench);
        // Whatever the host has under this key, in a namespace of one's own there is nothing.
        assert_eq!(attempt(&bench, &policy, "shared_memory", "1234"), "ENOENT");
    }

    fn every_namespace_is_another_than_the_hosts(who: Who) {
        let Some(bench) = Bench::new(who) else { return };
        let inside = attempt(&bench, &with_probe(&bench), "namespaces", "");
        for one in inside.split(' ') {
            let (kind, number) = one.split_once('=').unwrap();
            let ours = std::fs::read_link(format!("/proc/self/ns/{kind}")).unwrap();
            assert_ne!(number, ours.to_str().unwrap(), "{kind}");
        }
        assert_eq!(inside.split(' ').count(), 7);
    }

    fn its_control_groups_are_all_that_it_sees_of_any(who: Who) {
        let Some(bench) = Bench::new(who) else { return };
        let mut policy = bench.policy();
        policy.limits.memory_bytes = Some(1 << 30);
        policy.limits.processes = Some(64);
        let groups = bench.output(&policy, &["cat", "/proc/self/cgroup"]);
        assert!(!groups.is_empty());
        assert!(groups.lines().all(|line| line.ends_with(":/")), "{groups}");
    }

    fn the_first_process_does_not_execute_itself_for_somebody(who: Who) {
        let Some(bench) = Bench::new(who) else { return };
        // Between fork and program it is the host's executable, which nobody inside may get hold of.
        let script = "ln -s /proc/self/exe /home/agent/agent";
        let commands = [
            json!({ "argv": ["sh", "-c", script] }),
            json!({ "argv": ["/home/agent/agent", "--version"] }),
        ];
        let report = bench.run(&bench.policy(), &commands);
        let expected = "/home/agent/agent: executing the program failed inside the sandbox: Permission denied (os error 13)";
        assert_eq!(report.outcomes[1].error.as_deref(), Some(expected));
    }

    fn a_symbolic_link_in_a_binds_source_is_refused(who: Who) {
        let Some(bench) = Bench::new(who) else { return };
        let project = bench.owned_directory("project");
        let secret = bench.path().join("secret");
        std::fs::write(&secret, CANARY).unwrap();
        std::os::unix::fs::symlink(bench.path(), project.join("data")).unwrap();
        let mut policy = bench.policy();
        policy
            .binds
            .push(bind(&project.join("data/secret"), "/data"));
        let report = bench.run(&policy, &[json!({ "argv": ["cat", "/data"] })]);
        let error = report.error.expect("an error");
        assert!(
            error.contains("the file system layer cannot be applied: open #"),
            "{error}"
        );
        assert!(
            error.contains("there is a symbolic link in the path"),
            "{error}"
        );
        assert!(report.outcomes.is_empty());
    }

    fn a_symbolic_link_that_a_sandbox_planted_at_a_binds_target_is_refused(who: Who) {
        let Some(bench) = Bench::new(who) else { return };
        let mut policy = bench.policy();
        bench.output(&policy, &["ln", "-s", "/etc", "/home/agent/shown"]);
        let shown = bench.owned_directory("shown");
        policy.binds.push(bind(&shown, "/home/agent/shown/inner"));
        let report = bench.run(&policy, &[json!({ "argv": ["true"] })]);
        let error = report.error.expect("an error");
        assert!(error.contains("show #"), "{error}");
        assert!(
            error.contains("there is a symbolic link in the path"),
            "{error}"
        );
    }

    fn a_sandbox_that_kills_everything_does_not_reach_another_command_of_the_host(who: Who) {
        let Some(bench) = Bench::new(who) else { return };
        // Of the very user that the sandbox runs as on the host.
        let mut bystander = bench.as_the_sandboxes_user("sleep");
        let mut bystander = bystander.arg("600").spawn().unwrap();
        let report = bench.run(
            &bench.policy(),
            &[json!({ "argv": ["sh", "-c", "kill -9 -1"] })],
        );
        assert_eq!(report.error, None);
        let still_there = bystander.try_wait().unwrap().is_none();
        bystander.kill().unwrap();
        bystander.wait().unwrap();
        assert!(still_there);
    }
}

/// Opening is one step and cannot be led astray: either it is the directory, or it is a link and nothing runs.
#[tokio::test]
async fn a_bind_that_is_exchanged_for_a_link_while_sandboxes_start_never_shows_where_it_leads() {
    let bench = Bench::new(whoever_this_is()).unwrap();
    let secret = bench.owned_directory("secret");
    std::fs::write(secret.join("text"), CANARY).unwrap();
    let project = bench.owned_directory("project");
    let data = bench.owned_directory("project/data");
    std::fs::write(data.join("text"), "harmless").unwrap();
    std::os::unix::fs::symlink(&secret, project.join("link")).unwrap();
    let launcher = bench.launcher();
    let mut attackers = with_probe(&bench);
    attackers.binds.push(Bind {
        source: project,
        target: "/project".into(),
        access: Access::ReadWrite,
    });
    let attacker = launcher.launch(&attackers).await.unwrap();
    let argv = [
        "/usr/bin/python3",
        "/probe/escape.py",
        "exchange",
        "/project/data,/project/link",
    ];
    let mut attack = attacker.exec(Exec::new(argv)).await.unwrap();
    let mut said = [0; 11];
    attack
        .stdout
        .as_mut()
        .unwrap()
        .read_exact(&mut said)
        .await
        .unwrap();
    let mut policy = bench.policy();
    policy.binds.push(bind(&data, "/data"));
    let (mut shown, mut refused) = (0, 0);
    for _ in 0..1000 {
        if shown >= 20 && refused >= 20 {
            break;
        }
        let Ok(sandbox) = launcher.launch(&policy).await else {
            refused += 1;
            continue;
        };
        let mut process = sandbox
            .exec(Exec::new(["cat", "/data/text"]))
            .await
            .unwrap();
        let mut text = String::new();
        process
            .stdout
            .take()
            .unwrap()
            .read_to_string(&mut text)
            .await
            .unwrap();
        assert_eq!(text, "harmless");
        shown += 1;
    }
    assert!(
        shown >= 20 && refused >= 20,
        "no race: {shown} shown, {refused} refused"
    );
    drop(attacker);
    launcher.closed().await;
}

fn can(who: Who) -> bool {
    who == Who::PlainUser || crate::support::am_root()
}

fn tried(who: Who, action: &str, argument: &str) -> Option<String> {
    let bench = Bench::new(who)?;
    let policy = with_probe(&bench);
    Some(attempt(&bench, &policy, action, argument))
}

fn attempt(bench: &Bench, policy: &Policy, action: &str, argument: &str) -> String {
    let argv = ["/usr/bin/python3", "/probe/escape.py", action, argument];
    bench.output(policy, &argv).trim_end().to_owned()
}

fn with_probe(bench: &Bench) -> Policy {
    let directory = bench.path().join("probe");
    std::fs::create_dir(&directory).unwrap();
    std::fs::set_permissions(&directory, PermissionsExt::from_mode(0o755)).unwrap();
    std::fs::write(directory.join("escape.py"), include_str!("escape.py")).unwrap();
    let mut policy = bench.policy();
    policy.binds.push(bind(&directory, "/probe"));
    policy
}

fn bind(source: &std::path::Path, target: &str) -> Bind {
    Bind {
        source: source.to_owned(),
        target: target.into(),
        access: Access::ReadOnly,
    }
}
