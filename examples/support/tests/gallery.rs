//! The README of the examples shows every program.

use std::fs;
use std::path::Path;

use example_support::testing::is_picture;

#[test]
fn the_gallery_shows_every_program() {
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let gallery = fs::read_to_string(examples.join("README.md")).unwrap();
    let paths = fs::read_dir(examples).unwrap().map(|entry| entry.unwrap().path());
    let programs: Vec<_> = paths.filter(|path| path.join("src/main.rs").exists()).collect();
    assert!(programs.len() >= 7, "{programs:?}");
    for program in programs {
        let name = program.file_name().unwrap().to_str().unwrap();
        let picture = format!("pictures/{name}.svg");
        for text in [
            format!("## [{name}]({name}/src/main.rs)\n"),
            format!("cargo run --release -p {name} -- "),
            format!("--svg examples/{picture}"),
            format!("]({picture})"),
        ] {
            assert!(gallery.contains(&text), "{text:?} is not in the gallery");
        }
        is_picture(&examples.join(picture), 5_000);
    }
}
