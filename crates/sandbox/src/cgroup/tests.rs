use super::*;

const HYBRID: &str = "\
26 25 0:22 / /sys/fs/cgroup ro,nosuid shared:9 - tmpfs tmpfs ro,mode=755
27 26 0:23 / /sys/fs/cgroup/unified rw,nosuid shared:10 - cgroup2 cgroup2 rw,nsdelegate
30 26 0:26 / /sys/fs/cgroup/memory rw,nosuid shared:12 - cgroup cgroup rw,memory
31 26 0:27 / /sys/fs/cgroup/cpu,cpuacct rw,nosuid shared:13 - cgroup cgroup rw,cpu,cpuacct
";

#[test]
fn hierarchies_of_both_versions_are_found_where_they_are_mounted() {
    let own = "4:memory:/user/one\n3:cpu,cpuacct:/\n0::/user.slice\n";
    let expected = Hierarchies {
        memory: Some(PathBuf::from("/sys/fs/cgroup/memory/user/one")),
        processes: None,
        cpu: Some(PathBuf::from("/sys/fs/cgroup/cpu,cpuacct/")),
        unified: Some(PathBuf::from("/sys/fs/cgroup/unified/user.slice")),
    };
    assert_eq!(Hierarchies::parse(own, HYBRID), expected);
}

#[test]
fn a_container_that_is_shown_its_own_part_of_a_hierarchy_finds_itself_in_it() {
    let mounts = "30 26 0:26 /docker/abc /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n";
    let found = Hierarchies::parse("4:memory:/docker/abc/sub\n", mounts);
    assert_eq!(
        found.memory,
        Some(PathBuf::from("/sys/fs/cgroup/memory/sub"))
    );
}

#[test]
fn a_supervisor_that_moved_aside_still_has_its_groups_beside_itself() {
    let mounts = "27 26 0:23 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n";
    let found = Hierarchies::parse(
        "0::/system.slice/farrier.service/farrier-supervisor\n",
        mounts,
    );
    let expected = PathBuf::from("/sys/fs/cgroup/system.slice/farrier.service/");
    assert_eq!(found.unified, Some(expected));
}

#[test]
fn a_limit_without_a_group_is_reported_and_says_why() {
    let limits = Limits {
        memory_bytes: Some(1 << 20),
        processes: Some(7),
        cpu_percent: None,
        open_files: 64,
    };
    let (group, in_force) = Hierarchies::default().create("alone", &limits);
    assert_eq!(group.directories, Vec::<PathBuf>::new());
    assert_eq!(
        in_force,
        LimitsInForce {
            memory: Limit::NotInForce {
                reason: "no control group with this controller is there for Farrier".to_owned()
            },
            processes: Limit::InForce {
                by: "RLIMIT_NPROC",
                most: 7
            },
            cpu: Limit::None,
        }
    );
}

#[test]
fn limits_are_written_to_the_files_of_version_2() {
    let parent = tempfile::tempdir().expect("a directory");
    let path = parent.path();
    fs::write(path.join("cgroup.controllers"), "cpu memory pids\n").expect("written");
    fs::write(path.join("cgroup.subtree_control"), "cpu memory pids\n").expect("written");
    let hierarchies = Hierarchies {
        unified: Some(path.to_owned()),
        ..Hierarchies::default()
    };
    let limits = Limits {
        memory_bytes: Some(4096),
        processes: Some(7),
        cpu_percent: Some(150),
        open_files: 64,
    };
    let (group, in_force) = hierarchies.create("two", &limits);
    let [directory] = group.directories.as_slice() else {
        panic!("expected one group, got {:?}", group.directories);
    };
    let read = |name: &str| fs::read_to_string(directory.join(name)).expect("written");
    assert_eq!(read("memory.max"), "4096");
    assert_eq!(read("memory.swap.max"), "0");
    assert_eq!(read("pids.max"), "7");
    assert_eq!(read("cpu.max"), "150000 100000");
    assert_eq!(
        in_force.cpu,
        Limit::InForce {
            by: "cgroup v2 cpu",
            most: 150
        }
    );
}

#[test]
fn what_a_dead_supervisor_left_is_swept_and_nothing_else() {
    let parent = tempfile::tempdir().expect("a directory");
    let pid = std::process::id();
    let start = started(pid).expect("this process runs");
    let own = format!("farrier-{pid}.{start}-mine");
    // Another process had this one's number; no process has the largest number there is.
    let earlier = format!("farrier-{pid}.{}-old", start - 1);
    let (dead, other) = ("farrier-4194304.7-old", "farrier-notes");
    for name in [own.as_str(), earlier.as_str(), dead, other] {
        fs::create_dir(parent.path().join(name)).expect("made");
    }
    let hierarchies = Hierarchies {
        memory: Some(parent.path().to_owned()),
        ..Hierarchies::default()
    };
    hierarchies.sweep();
    let left = |name: &str| parent.path().join(name).exists();
    assert_eq!([left(dead), left(&earlier)], [false, false]);
    assert_eq!([left(&own), left(other)], [true, true]);
}
