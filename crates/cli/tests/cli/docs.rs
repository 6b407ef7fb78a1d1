use crate::home::Home;

const DOC: &str = include_str!("../../../../docs/cli.md");

/// The words of a help's list of commands.
fn subcommands(help: &str) -> Vec<String> {
    let list = help.split("Commands:\n").nth(1).unwrap_or_default();
    let lines = list.lines().take_while(|line| !line.is_empty());
    let words = lines.filter(|line| line.starts_with("  ") && !line.starts_with("   "));
    let words = words
        .filter_map(|line| line.split_whitespace().next())
        .map(str::to_owned);
    words.filter(|word| word != "help").collect()
}

/// The options that a help shows.
fn options(help: &str) -> Vec<String> {
    let words = help
        .split_whitespace()
        .filter(|word| word.starts_with("--"));
    let names = words.map(|word| {
        let name = |sign: char| sign.is_ascii_alphanumeric() || sign == '-';
        word.chars()
            .take_while(|sign| name(*sign))
            .collect::<String>()
    });
    names
        .filter(|name| !["--help", "--version"].contains(&name.as_str()))
        .collect()
}

#[test]
fn the_documentation_lists_every_subcommand_and_option() {
    let home = Home::new();
    let top = subcommands(&home.run(&["--help"]).stdout);
    assert!(top.len() >= 6, "{top:?}");
    for command in top {
        let help = home.run(&[&command, "--help"]).stdout;
        let below = subcommands(&help);
        let mut pages = vec![(command.clone(), help)];
        for word in below {
            let help = home.run(&[&command, &word, "--help"]).stdout;
            pages.push((format!("{command} {word}"), help));
        }
        for (name, help) in pages {
            let heading = format!("farrier {name}");
            assert!(DOC.contains(&heading), "docs/cli.md lacks `{heading}`");
            for option in options(&help) {
                assert!(
                    DOC.contains(&format!("`{option}")),
                    "docs/cli.md lacks {option} of {name}"
                );
            }
        }
    }
}

#[test]
fn variables_that_are_read_are_documented() {
    for name in [
        "FARRIER_LOG",
        "NO_COLOR",
        "XDG_CONFIG_HOME",
        "XDG_RUNTIME_DIR",
        "XDG_STATE_HOME",
        "COLUMNS",
    ] {
        assert!(DOC.contains(name), "docs/cli.md lacks {name}");
    }
}
