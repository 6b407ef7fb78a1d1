//! Embeds every `personas/*.json`, so that adding a persona is adding a file.

use std::error::Error;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

fn main() -> Result<(), Box<dyn Error>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("personas");
    println!("cargo::rerun-if-changed={}", folder.display());

    let mut files = std::fs::read_dir(&folder)?
        .map(|entry| entry.map(|entry| entry.path()))
        .collect::<Result<Vec<PathBuf>, _>>()?;
    files.retain(|path| path.extension().is_some_and(|ending| ending == "json"));
    files.sort_by_key(|path| path.file_stem().map(ToOwned::to_owned));

    let mut table = String::from("&[\n");
    for file in &files {
        let name = file
            .file_stem()
            .and_then(|stem| stem.to_str())
            .ok_or("a persona's file name is not UTF-8")?;
        writeln!(table, "    ({name:?}, include_str!({file:?})),")?;
    }
    table.push_str("]\n");

    let out = std::env::var_os("OUT_DIR").ok_or("cargo sets OUT_DIR for build scripts")?;
    std::fs::write(Path::new(&out).join("personas.rs"), table)?;
    Ok(())
}
