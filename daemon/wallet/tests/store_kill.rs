//! Real processes killed with SIGKILL while they record facts (`spec/wallet.md` 15 item 7,
//! `spec/defects.md` rows 21 and 35).

mod common;

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};

use common::{block, open, script};
use joinery_wallet::store::Fact;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

const DIR: &str = "STORE_KILL_DIR";
const KILLS: u32 = 120;

/// Index that the next address would get.
fn next_index(dir: &Path) -> u32 {
    open(dir).facts().issued.get(&(0, 1)).copied().unwrap_or_default()
}

/// The child: hands out indexes for ever and names each one only after it was recorded.
#[test]
#[ignore = "run as a child process by the other test"]
fn child_issues_until_it_is_killed() {
    let dir = std::env::var_os(DIR).expect("set by the parent");
    let mut store = open(Path::new(&dir));
    let mut out = std::io::stdout().lock();
    let (mut merged, _) = store.load_chain().expect("loads");
    loop {
        let index = store.facts().issued.get(&(0, 1)).copied().unwrap_or_default();
        let issued = Fact::Issued { mixdepth: 0, branch: 1, next_unused: index + 1 };
        let label = Fact::Label { address: format!("a{index}"), label: format!("l{index}") };
        store.record(&[issued, label]).expect("records");
        writeln!(out, "told {index}").and_then(|()| out.flush()).expect("parent listens");
        let change = block(index);
        store.append_chain(&change, &[(script(index), Some([1; 32]))]).expect("appends");
        merged.chain.blocks.extend(change.chain.blocks);
        match index % 23 {
            5 => store.commit().expect("commits"),
            17 => store.compact(&merged).expect("compacts"),
            _ => {}
        }
    }
}

#[test]
fn kill9_then_unlock_and_no_index_is_told_twice() {
    let dir = tempfile::tempdir().expect("temp dir");
    let mut rng = StdRng::seed_from_u64(35);
    let mut told: Vec<u32> = Vec::new();
    for kill in 0..KILLS {
        let mut child = Command::new(std::env::current_exe().expect("own path"))
            .args(["--ignored", "--exact", "child_issues_until_it_is_killed", "--nocapture"])
            .env(DIR, dir.path())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("starts itself");
        let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines();
        // Every tenth is killed while it opens.
        let patience = if kill % 10 == 9 { 0 } else { rng.random_range(1..16) };
        let mut heard = 0;
        let mut hear = |line: std::io::Result<String>| {
            let line = line.expect("text");
            let index = line.split("told ").nth(1).and_then(|n| n.parse::<u32>().ok());
            if let Some(index) = index {
                assert!(told.last().is_none_or(|&last| index > last), "{index} after {told:?}");
                told.push(index);
                heard += 1;
            }
            heard
        };
        if patience > 0 {
            loop {
                let line = lines.next();
                let line = line.unwrap_or_else(|| panic!("the child ended by itself, kill {kill}"));
                if hear(line) >= patience {
                    break;
                }
            }
        }
        child.kill().expect("is running");
        child.wait().expect("ends");
        // What it said before it died counts as well.
        for line in lines {
            hear(line);
        }
    }
    assert!(told.len() > 300, "only {} were told", told.len());
    assert!(next_index(dir.path()) > told[told.len() - 1]);
    let store = open(dir.path());
    for index in &told {
        assert_eq!(store.facts().labels.get(&format!("a{index}")), Some(&format!("l{index}")));
    }
}
