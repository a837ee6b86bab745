//! Fills the corpus of every target with the texts of the published vectors that it understands.
//!
//! `cargo run --bin seeds` from `daemon/fuzz`; with a word behind `--` only for targets whose names begin with it.
//! Existing files stay.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

fn texts(value: &Value, found: &mut BTreeSet<Vec<u8>>) {
    match value {
        Value::String(text) => {
            found.insert(text.as_bytes().to_vec());
            // Messages in transcripts stand behind `from!to!` or a word: their parts are seeds as well.
            for separator in ['!', ' '] {
                let mut rest = text.as_str();
                for _ in 0..3 {
                    let Some((_, tail)) = rest.split_once(separator) else { break };
                    found.insert(tail.as_bytes().to_vec());
                    rest = tail;
                }
            }
            found.extend(text.split(' ').map(|field| field.as_bytes().to_vec()));
            if let Ok(inner) = serde_json::from_str::<Value>(text) {
                if inner.is_object() {
                    texts(&inner, found);
                }
            }
        }
        Value::Array(values) => values.iter().for_each(|value| texts(value, found)),
        Value::Object(map) => {
            found.insert(value.to_string().into_bytes());
            map.values().for_each(|value| texts(value, found));
        }
        _ => {}
    }
}

fn files(directory: &Path, found: &mut Vec<PathBuf>) -> std::io::Result<()> {
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        if path.is_dir() {
            files(&path, found)?;
        } else if path.extension().is_some_and(|extension| extension == "json") {
            found.push(path);
        }
    }
    Ok(())
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let (mut paths, mut inputs) = (Vec::new(), BTreeSet::new());
    files(&here.join("../proto/tests/vectors"), &mut paths)?;
    for path in &paths {
        texts(&serde_json::from_slice(&fs::read(path)?)?, &mut inputs);
    }
    inputs.retain(|input| !input.is_empty() && input.len() <= 100_000);
    // Forms that need something in front or around them.
    let mut more = Vec::new();
    for input in inputs.iter().filter(|input| input.len() < 2_000) {
        more.push([b"\x05".as_slice(), input, b"\r\n", input, b"\n"].concat());
        more.push([b"!".as_slice(), input, b" ;\n", input, b" ~"].concat());
    }
    inputs.extend(more.into_iter().take(4_000));
    let mut empty = Vec::new();
    let only = std::env::args().nth(1).unwrap_or_default();
    for (name, run) in joinery_fuzz::TARGETS.iter().filter(|(name, _)| name.starts_with(&only)) {
        let corpus = here.join("corpus").join(name);
        fs::create_dir_all(&corpus)?;
        let mut count = 0;
        if name.starts_with("session_") {
            let seed = joinery_fuzz::session::honest(name);
            assert!(run(&seed), "the honest conversation of {name} ends well");
            fs::write(corpus.join("honest"), seed)?;
            count = 1;
        } else if name.starts_with("machine_") {
            let seed = joinery_fuzz::machines::honest(name);
            assert!(run(&seed), "the honest story of {name} gets to its end");
            fs::write(corpus.join("honest"), seed)?;
            count = 1;
        } else if *name == "message_signature" {
            let seed = joinery_fuzz::parsers::signed_message();
            assert!(run(seed.as_bytes()), "an own signature is understood");
            fs::write(corpus.join("own"), seed)?;
            count = 1;
        } else {
            for input in inputs.iter().filter(|input| run(input)).take(200) {
                fs::write(corpus.join(format!("vector-{count:03}")), input)?;
                count += 1;
            }
        }
        println!("{name}: {count} seeds");
        if count == 0 {
            empty.push(*name);
        }
    }
    if empty.is_empty() { Ok(()) } else { Err(format!("no seed for {empty:?}").into()) }
}
