//! The image for a card, booted as it is through U-Boot in an emulated machine: first start, what is open, what is
//! written, updates, falling back, power cuts.
//!
//! `make image-test` builds the image and runs this (`image/test.sh`); by itself it has nothing to boot. Moments of power
//! cuts come from a seed that is printed: `JOINERY_IMAGE_SEED` sets it, `JOINERY_IMAGE_CUTS` the number of cuts.
#![allow(clippy::unwrap_used, reason = "a test ends where something is not as it should be")]
#![allow(clippy::print_stderr, reason = "its output is read by people")]

#[allow(unreachable_pub, reason = "modules of one test program")]
mod card;
#[allow(unreachable_pub, reason = "modules of one test program")]
mod outside;
#[path = "../support/mod.rs"]
mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::time::Instant;

use card::{
    CARD, Card, HTTPS, RPC, SSH, WALLET, WEBSOCKET, at_prompt, awaited, started, starts,
    update_when,
};
use joinery_testkit::emulator::Machine;
use outside::Box;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::{Value, json};
use support::client::shown_certificate;

/// Of the boot loader on the machine `virt`.
const PROMPT: &str = "\n=> ";
/// Of the encrypted volume; the same in a form.
const VOLUME_PASSWORD: &str = "hunter-of-cards-77c1";
/// Power cuts of the long test.
const CUTS: u32 = 20;
/// Units that the box is for, or that came with it and were to run once.
const UNITS: [&str; 16] = [
    "joineryd.service",
    "joinery-settings.service",
    "joinery-tor-only.service",
    "joinery-ssh.service",
    "joinery-mark-good.service",
    "joinery-update.path",
    "joinery-poweroff.path",
    "joinery-close-modules.timer",
    "tor.service",
    "avahi-daemon.service",
    "nftables.service",
    "rauc.service",
    "systemd-networkd.service",
    "systemd-resolved.service",
    "systemd-timesyncd.service",
    "dbus.service",
];
/// Steps in which the clock is set on by a day.
const DAY_STEPS: u64 = 8;
/// The only files of the boot partition that a box changes.
const CHANGED: [&str; 3] = ["joinery.env", "joinery.txt", "joinery-problems.txt"];
/// What is not started for the time that the others are compared with: kernel, systemd and the network remain.
const OURS: [&str; 8] = [
    "joineryd.service",
    "joinery-board.service",
    "joinery-mark-good.service",
    "joinery-resume-key.service",
    "joinery-ssh.service",
    "rauc.service",
    "tor.service",
    "avahi-daemon.service",
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "make image-test builds what it boots"]
async fn first_start_what_is_open_and_what_is_written() {
    let mut card = Card::new();
    card.settings(|text| {
        let wifi = "wifi_name = home\nwifi_password = the secret\nwifi_country = DE";
        format!("{text}\n{wifi}\ncolour = blue\n")
    });
    let on = Instant::now();
    let mut machine = card.switch_on();
    let mut client = card.client(&mut machine).await;
    eprintln!(
        "first start: HTTPS answers {:.0} s after power-on, {:.0} s of which this machine's processors worked",
        on.elapsed().as_secs_f32(),
        machine.worked().unwrap().as_secs_f32(),
    );
    client.create(WALLET).await;
    let mut known = BTreeSet::from([client.address(0).await]);

    // Everything that was to start has, and nothing failed.
    card.ssh_until(
        &mut machine,
        "systemctl is-system-running || systemctl --failed --no-legend",
        |state| {
            assert!(["running", "starting", "initializing"].contains(&state), "{state}");
            state == "running"
        },
    )
    .await;
    assert_eq!(card.ssh(&mut machine, "systemctl --failed --no-legend").await, "");
    eprintln!("{}", card.ssh(&mut machine, "systemd-analyze time").await);
    eprintln!("{}", card.ssh(&mut machine, "systemd-analyze blame | head -n 15").await);
    for unit in UNITS {
        let state = card.ssh(&mut machine, &format!("systemctl is-active {unit} || true")).await;
        assert_eq!(state, "active", "{unit}");
    }
    let key = "systemctl show --value --property=Result,ExecMainStatus,ExecMainStartTimestampMonotonic \
               joinery-resume-key.service; stat -c '%U %a %s' /var/lib/joinery-resume/joinery.resume";
    let key = card.ssh(&mut machine, key).await;
    eprintln!("key for going on after a power cut: {key:?}");
    assert!(key.starts_with("success\n") && key.contains("root 600"), "{key}");
    let patience = "systemctl show --value --property=DefaultDeviceTimeoutUSec";
    assert_eq!(card.ssh(&mut machine, patience).await, "5min");
    // No display answers here, so that nothing waits for its button.
    let approve = "grep -c ^approve /run/joinery-box/joineryd.toml || true";
    assert_eq!(card.ssh(&mut machine, approve).await, "0");

    // Who it is, where it runs, and that nobody gets in with a password.
    let identity = "cat /etc/hostname /etc/machine-id";
    let name = card.ssh(&mut machine, identity).await;
    assert!(name.starts_with("joinery-"), "{name}");
    let status = card.ssh(&mut machine, "rauc status").await;
    assert!(status.contains("Booted from: rootfs.0 (A)"), "{status}");
    let shadow = card.ssh(&mut machine, "cut -d: -f2 /etc/shadow | sort -u").await;
    assert!(shadow.lines().all(|hash| hash.starts_with('!')), "{shadow}");
    assert_eq!(card.ssh(&mut machine, "cat /proc/sys/kernel/core_pattern").await, "|/bin/false");
    let lockdown = card.ssh(&mut machine, "cat /sys/kernel/security/lockdown").await;
    assert!(lockdown.contains("[integrity]"), "{lockdown}");
    let update = update_when(&mut machine, &client, "updates are possible", |_| true).await;
    assert_eq!((&update["slot"], &update["state"]), (&json!("A"), &json!("idle")), "{update}");

    // The data partition has the rest of the card; nothing else can be written.
    let data = card.ssh(&mut machine, "echo $(($(stat -f -c '%S * %b' /data)))").await;
    let rest = CARD - card.partition(4).0;
    assert!(data.parse::<u64>().unwrap() > rest / 10 * 9, "/data has {data} of {rest}");
    for directory in ["/", "/usr", "/etc", "/root", "/boot/firmware"] {
        let refused = format!("! touch {directory}/x 2>/dev/null && echo refused");
        assert_eq!(card.ssh(&mut machine, &refused).await, "refused", "{directory}");
    }
    let closed = "cat /proc/sys/kernel/modules_disabled";
    card.ssh_until(&mut machine, closed, |printed| printed == "1").await;
    let state = card.ssh(&mut machine, "systemctl is-system-running || true").await;
    assert_eq!(state, "running", "later, too");

    // From outside, by both protocols. 443 leads to the API.
    let ours = BTreeSet::from([RPC, WEBSOCKET, HTTPS]);
    let with_ssh: BTreeSet<u16> = ours.iter().copied().chain([SSH]).collect();
    only_open(Box::ipv6(), &mut machine, &with_ssh).await;
    let addresses =
        card.ssh(&mut machine, "grep -o '169[.]254[.][0-9.]*' /proc/net/fib_trie | sort -u").await;
    eprintln!("addresses without a DHCP server: {addresses:?}");
    let own = addresses.lines().filter_map(|line| line.parse::<Ipv4Addr>().ok());
    let mut own =
        own.filter(|address| !matches!(address.octets(), [_, _, 0, 0] | [_, _, 255, 255]));
    let own = own.next().expect("an address of IPv4 on the second cable");
    only_open(Box::ipv4(own), &mut machine, &with_ssh).await;
    let answer = Box::ipv6().mdns().await.expect("mDNS answers");
    let answer = String::from_utf8_lossy(&answer).into_owned();
    assert!(answer.contains("Joinery on joinery-"), "{answer:?}");
    for port in [RPC, HTTPS] {
        let address = machine.address(port).unwrap();
        assert!(shown_certificate(address).await.is_some(), "HTTPS at {port}");
    }

    // After a day only what is meant to be written was written.
    a_day(&mut card, &mut machine, client, &mut known).await;
    card.switch_off(machine).await;
    assert!(card.as_flashed(2) && card.as_flashed(3), "a root slot was written to");
    let boot = card.boot_files();
    let text = |name: &str| String::from_utf8_lossy(&boot[name]).into_owned();
    assert!(text("joinery.txt").contains("wifi_password = **********\n"), "the password stays");
    let problems = text("joinery-problems.txt");
    assert!(
        problems.lines().count() == 1 && problems.contains("no setting \"colour\""),
        "{problems}"
    );
    let others = |mut files: BTreeMap<String, Vec<u8>>| {
        files.retain(|name, _| !CHANGED.contains(&name.as_str()));
        files
    };
    assert!(others(boot) == others(card.boot_files_as_flashed()), "the boot partition has changed");

    // The next start, without a key for ssh: the same box, the same wallet.
    card.settings(|text| text.replace("\nssh_key", "\n#ssh_key").replace("\ncolour", "\n#colour"));
    let on = Instant::now();
    let mut machine = card.switch_on();
    card.client(&mut machine).await;
    let (whole, work) = (on.elapsed(), machine.worked().unwrap());
    eprintln!(
        "later start: HTTPS answers {:.0} s after power-on, {:.0} s of which this machine's processors worked",
        whole.as_secs_f32(),
        work.as_secs_f32(),
    );
    let client = card.unlocked(&mut machine).await;
    assert!(known.insert(client.address(0).await), "an address was handed out twice");
    only_open(Box::ipv6(), &mut machine, &ours).await;
    machine.cut_power().unwrap();
    card.disk.cut(|| false).unwrap();
    assert!(card.as_flashed(2) && card.as_flashed(3), "a root slot was written to");
    assert!(!card.boot_files().contains_key("joinery-problems.txt"), "nothing is wrong any more");

    // Kernel and systemd alone, to compare with.
    let masked: String = OURS.iter().map(|unit| format!(" systemd.mask={unit}")).collect();
    let command_line = format!("rauc.slot=A loglevel=4 systemd.show_status=1{masked}");
    let on = Instant::now();
    let mut machine = card.switch_on_with(&command_line);
    awaited(&mut machine, "multi-user.target", async |machine| {
        machine.console().contains("Multi-User System").then_some(())
    })
    .await;
    let (bare, bare_work) = (on.elapsed(), machine.worked().unwrap());
    eprintln!(
        "kernel and systemd alone: {:.0} s to multi-user.target, {:.0} s of work; a start of the image to HTTPS is {:.2} times \
         the time and {:.2} times the work",
        bare.as_secs_f32(),
        bare_work.as_secs_f32(),
        whole.as_secs_f32() / bare.as_secs_f32(),
        work.as_secs_f32() / bare_work.as_secs_f32(),
    );
    machine.cut_power().unwrap();
}

/// What a day brings, in a few minutes: the clock is set on in steps while the daemon runs, whatever a timer starts is
/// started, the log is written and turned over, the wallet is locked, opened and used.
async fn a_day(
    card: &mut Card,
    machine: &mut Machine,
    mut client: support::Client,
    known: &mut BTreeSet<String>,
) {
    let begin = Instant::now();
    // Nothing else than the data partition can be written at all, whatever is mounted over it.
    let written =
        "awk '$1 ~ \"^/dev/\" && $4 ~ /(^|,)rw(,|$)/ { print $1 }' /proc/mounts | sort -u";
    let data = card.ssh(machine, written).await;
    assert!(data.lines().count() == 1 && data.ends_with('4'), "{data}");
    let clock = "date +%s";
    let first: u64 = card.ssh(machine, clock).await.parse().unwrap();
    for step in 1..=DAY_STEPS {
        client.lock().await;
        let on = format!(
            "date -s @$(($(date +%s) + {})) && seq 300 | sed 's/^/a line of the log, /' | systemd-cat && journalctl --rotate",
            24 * 3600 / DAY_STEPS,
        );
        card.ssh(machine, &on).await;
        client = card.unlocked(machine).await;
        assert!(known.insert(client.address(0).await), "an address was handed out twice");
        let setting = json!({
            "section": "POLICY", "field": "minimum_makers", "value": (2 + step % 3).to_string(),
        });
        client.wallet_post("/configset", setting).await.expect(200);
    }
    let started = card
        .ssh(
            machine,
            "for timer in $(systemctl list-units --plain --no-legend --type=timer --state=active | cut -d ' ' -f 1); do \
               unit=$(systemctl show --value --property=Unit $timer); systemctl start $unit && echo $unit; done",
        )
        .await;
    assert!(started.contains("systemd-tmpfiles-clean.service"), "{started}");
    card.ssh(machine, "systemctl reload tor && systemctl restart systemd-timesyncd").await;
    let last: u64 = card.ssh(machine, clock).await.parse().unwrap();
    assert!(last >= first + 24 * 3600, "{first} {last}");
    let state = "systemctl is-system-running || systemctl --failed --no-legend";
    card.ssh_until(machine, state, |state| state == "running").await;
    eprintln!(
        "a day in {:.0} s; started besides: {}",
        begin.elapsed().as_secs_f32(),
        started.replace('\n', " "),
    );
}

/// Asks every port of TCP and some of UDP.
async fn only_open(address: Box, machine: &mut Machine, expected: &BTreeSet<u16>) {
    awaited(machine, "the second cable", async |_| address.takes(RPC).await.then_some(())).await;
    let begin = Instant::now();
    let (open, refused) = address.tcp().await;
    eprintln!(
        "{address:?}: TCP {open:?} open, {} of 65535 refused, {:.0} s",
        refused.len(),
        begin.elapsed().as_secs_f32(),
    );
    assert_eq!(&open, expected);
    assert_eq!(refused, BTreeSet::new(), "what is not open does not answer");
    // Answers of DHCP for IPv6 come to 546, from neighbours only; without a router nobody waits for them there.
    let answering = address.udp().await;
    assert!(answering.is_subset(&BTreeSet::from([546])), "ports of UDP that answer: {answering:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "make image-test builds what it boots"]
async fn an_encrypted_box_asks_for_its_password() {
    let seed = std::env::var("JOINERY_IMAGE_SEED").ok();
    let seed = seed.map_or_else(rand::random, |text| text.parse().unwrap());
    eprintln!("JOINERY_IMAGE_SEED={seed}");
    let mut rng = StdRng::seed_from_u64(seed);
    let mut card = Card::new();
    card.settings(|text| text.replace("\nencrypt = no", "\nencrypt = yes"));
    let mut machine = card.switch_on();
    let page = card.key_page(&mut machine).await;
    assert!(page.get("/").await.1.contains("New password"));
    assert_eq!(page.get("/api/v1/session").await.0, 503);
    let state = "systemctl is-active joineryd joinery-key || true";
    card.ssh_until(&mut machine, state, |state| state == "inactive\nactive").await;
    let closed = "cat /proc/sys/kernel/modules_disabled";
    card.ssh_until(&mut machine, closed, |printed| printed == "1").await;

    // The power goes while the volume is made: nothing was in it yet, and it is made anew.
    let other = page.clone();
    let making = tokio::spawn(async move { other.enter("lost-with-the-power").await });
    let begun = "ls /data/encrypted/volume.new";
    card.ssh_until(&mut machine, begun, |printed| printed == "/data/encrypted/volume.new").await;
    machine.cut_power().unwrap();
    making.abort();
    let survival = f64::from(rng.random_range(0..=4)) / 4.0;
    eprintln!("cut: {:?}", card.disk.cut(|| rng.random_bool(survival)).unwrap());

    let mut machine = card.switch_on();
    let again = card.key_page(&mut machine).await;
    assert_eq!(again.certificate, page.certificate);
    assert!(again.get("/").await.1.contains("New password"));
    let begin = Instant::now();
    let (status, shown) = again.enter(VOLUME_PASSWORD).await.unwrap();
    assert_eq!(status, 200, "{shown}");
    eprintln!("made and opened in {:.0} s", begin.elapsed().as_secs_f32());
    again.gone(&mut machine).await;
    let mut client = card.client(&mut machine).await;
    client.create(WALLET).await;
    let address = client.address(0).await;
    let ready = |update: &Value| update["state"] == "idle";
    update_when(&mut machine, &client, "updates are possible", ready).await;
    let state = "systemctl is-system-running || systemctl --failed --no-legend";
    card.ssh_until(&mut machine, state, |state| state == "running").await;
    for unit in ["joineryd.service", "joinery-mark-good.service", "joinery-update.path"] {
        let state = card.ssh(&mut machine, &format!("systemctl is-active {unit} || true")).await;
        assert_eq!(state, "active", "{unit}");
    }
    let gone = "systemctl is-active joinery-key joinery-volume.socket || true";
    assert_eq!(card.ssh(&mut machine, gone).await, "inactive\ninactive");
    let mounted =
        "grep -c '^/dev/mapper/joinery /var/lib/joinery ext4 rw,nosuid,nodev,noexec,' /proc/mounts";
    assert_eq!(card.ssh(&mut machine, mounted).await, "1");
    let direct = "cat /sys/block/loop*/loop/dio | sort -u";
    assert_eq!(card.ssh(&mut machine, direct).await, "1");
    let header = card.ssh(&mut machine, "cryptsetup luksDump /data/encrypted/volume").await;
    for what in ["argon2id", "xchacha20,aes-adiantum-plain64", "131072", "512 [bytes]"] {
        assert!(header.contains(what), "{what} in {header}");
    }
    let log = card.ssh(&mut machine, "journalctl --no-pager -o cat").await;
    assert!(log.contains("asking for the password") && !log.contains(VOLUME_PASSWORD), "{log}");
    let key_of = |directory| format!("sed -n 2p /var/lib/{directory}/ssl/key.pem");
    let key = card.ssh(&mut machine, &key_of("joinery")).await;
    let key_of_the_page = card.ssh(&mut machine, &key_of("joinery-key")).await;
    assert!(key.len() == 64 && key != key_of_the_page, "{key}");
    machine.cut_power().unwrap();
    let survival = f64::from(rng.random_range(0..=4)) / 4.0;
    eprintln!("cut: {:?}", card.disk.cut(|| rng.random_bool(survival)).unwrap());

    // What whoever has the card can read; the other key shows that looking finds something.
    assert!(card.has(&key_of_the_page));
    for secret in [WALLET, &*key, VOLUME_PASSWORD] {
        assert!(!card.has(secret), "{secret} is on the card");
    }

    // It asks whatever the settings say, and the wallet is there.
    card.settings(|text| text.replace("\nencrypt = yes", "\nencrypt = no"));
    let mut machine = card.switch_on();
    let page = card.key_page(&mut machine).await;
    assert_eq!(page.certificate, again.certificate);
    assert!(!page.get("/").await.1.contains("New password"));
    card.ssh_until(&mut machine, closed, |printed| printed == "1").await;
    let begin = Instant::now();
    for wrong in ["lost-with-the-power", "wrong", &VOLUME_PASSWORD[1..]] {
        assert_eq!(page.enter(wrong).await.unwrap().0, 403, "{wrong}");
    }
    eprintln!("three wrong passwords in {:.0} s", begin.elapsed().as_secs_f32());
    let state = "systemctl is-active joineryd || true";
    assert_eq!(card.ssh(&mut machine, state).await, "inactive");
    let begin = Instant::now();
    assert_eq!(page.enter(VOLUME_PASSWORD).await.unwrap().0, 200);
    page.gone(&mut machine).await;
    let client = card.unlocked(&mut machine).await;
    eprintln!("the wallet is there after {:.0} s", begin.elapsed().as_secs_f32());
    assert_ne!(client.address(0).await, address, "an address was handed out twice");
    let state = "systemctl is-system-running || systemctl --failed --no-legend";
    card.ssh_until(&mut machine, state, |state| state == "running").await;
    card.switch_off(machine).await;
    assert!(card.as_flashed(2) && card.as_flashed(3), "a root slot was written to");
    for secret in [WALLET, &*key, VOLUME_PASSWORD] {
        assert!(!card.has(secret), "{secret} is on the card");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "make image-test builds what it boots"]
async fn an_update_is_kept_and_a_broken_one_is_not() {
    let mut card = Card::new();
    let mut machine = card.switch_on();
    let mut client = card.client(&mut machine).await;
    client.create(WALLET).await;
    let address = client.address(0).await;
    let before = update_when(&mut machine, &client, "updates are possible", |_| true).await;
    assert_eq!((&before["slot"], &before["state"]), (&json!("A"), &json!("idle")), "{before}");

    // What may not be installed is not.
    for (bundle, code) in [("foreign", "bundle_invalid"), ("old", "downgrade_refused")] {
        let accepted = client.try_upload("/api/v1/update", card.bundle(bundle)).await.unwrap();
        assert_eq!(accepted.status, 202, "{}", accepted.body);
        update_when(&mut machine, &client, code, |update| {
            update["state"] == "idle" && update["last"]["code"] == code
        })
        .await;
    }

    let mut begin = Instant::now();
    let mut slot = "A";
    for (bundle, tries, code) in
        [("new", 1, "updated"), ("dead", 4, "fell_back"), ("mute", 4, "fell_back")]
    {
        let accepted = client.try_upload("/api/v1/update", card.bundle(bundle)).await.unwrap();
        assert_eq!(accepted.status, 202, "{}", accepted.body);
        let uploaded = begin.elapsed();
        let installed = update_when(&mut machine, &client, "it is installed", |update| {
            assert!(
                update["state"] != "idle" || update["last"]["code"] != "install_failed",
                "{update}"
            );
            update["state"] == "restart_needed"
        })
        .await;
        eprintln!(
            "{bundle}: uploaded in {:.0} s, installed {:.0} s later: {installed}",
            uploaded.as_secs_f32(),
            (begin.elapsed() - uploaded).as_secs_f32(),
        );
        let before = starts(&machine);
        client.post("/update/restart", json!({})).await.expect(202);
        // Tries of the new system, and then the start of the old one.
        started(&mut machine, before + tries).await;
        client = card.unlocked(&mut machine).await;
        let update = update_when(&mut machine, &client, code, |update| {
            update["state"] == "idle" && update["last"]["code"] == code
        })
        .await;
        assert_eq!(starts(&machine), before + tries, "one start was too many");
        if code == "updated" {
            slot = "B";
        }
        assert_eq!(update["slot"], slot, "{update}");
        eprintln!("{bundle}: {code} after {:.0} s in all", begin.elapsed().as_secs_f32());
        assert_ne!(client.address(0).await, address, "an address was handed out twice");
        let state = "systemctl is-system-running || systemctl --failed --no-legend";
        card.ssh_until(&mut machine, state, |state| state == "running").await;
        begin = Instant::now();
    }
    card.switch_off(machine).await;
    assert!(card.holds(3, &card.variant("new")), "slot B is not what the bundle holds");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "make image-test builds what it boots"]
async fn it_boots_after_every_power_cut_of_an_update() {
    let number = |name: &str| std::env::var(name).ok().map(|text| text.parse::<u64>().unwrap());
    let seed = number("JOINERY_IMAGE_SEED").unwrap_or_else(rand::random);
    let cuts = number("JOINERY_IMAGE_CUTS").unwrap_or_else(|| u64::from(CUTS));
    eprintln!("JOINERY_IMAGE_SEED={seed} JOINERY_IMAGE_CUTS={cuts}");
    let mut rng = StdRng::seed_from_u64(seed);
    let mut card = Card::new();
    let mut machine = card.switch_on();
    let mut client = card.client(&mut machine).await;
    client.create(WALLET).await;
    let mut known = BTreeSet::from([client.address(0).await]);
    let ready = |update: &Value| update["state"] == "idle";
    update_when(&mut machine, &client, "updates are possible", ready).await;

    // How long an update takes here; it is cut at any moment of this and a little later, when the box starts again.
    let begin = Instant::now();
    install(&mut card, &mut machine, &client).await;
    let longest = begin.elapsed() * 5 / 4;
    machine.cut_power().unwrap();
    card.disk.cut(|| rng.random()).unwrap();
    machine = card.switch_on();
    client = card.unlocked(&mut machine).await;
    let mut reached = BTreeSet::new();
    for cut in 1..=cuts {
        let begin = Instant::now();
        // The report is that of before until the unit has decided.
        let decided = |update: &Value| update["state"] == "idle" && update["last"].is_object();
        let update = update_when(&mut machine, &client, "it was decided", decided).await;
        let moment = longest.mul_f64(rng.random());
        let end = Instant::now() + moment;
        let stage = tokio::time::timeout_at(end.into(), async {
            let before = starts(&machine);
            install(&mut card, &mut machine, &client).await;
            let _ = client.try_post("/api/v1/update/restart", &json!({})).await;
            started(&mut machine, before + 1).await;
            std::future::pending::<()>().await;
        })
        .await;
        assert!(stage.is_err(), "the moment comes");
        machine.cut_power().unwrap();
        // All that the card had in its cache, nothing, or anything in between.
        let survival = f64::from(rng.random_range(0..=4)) / 4.0;
        let lost = card.disk.cut(|| rng.random_bool(survival)).unwrap();
        // The slot that ran is whole.
        let partition = if update["slot"] == "A" { 2 } else { 3 };
        let as_built = update["version"] == env!("CARGO_PKG_VERSION");
        let file = if as_built { card.rootfs() } else { card.variant("new") };
        assert!(card.holds(partition, &file), "the slot that ran was written to: {update}");

        machine = card.switch_on();
        client = card.unlocked(&mut machine).await;
        assert!(known.insert(client.address(0).await), "an address was handed out twice");
        let after = update_when(&mut machine, &client, "it was decided", decided).await;
        // What was decided earlier stays in the report: a cut of an upload changes nothing.
        let decision = if after["last"] == update["last"] {
            "nothing was decided"
        } else {
            after["last"]["code"].as_str().unwrap_or_default()
        };
        eprintln!(
            "cut {cut} after {:.1} s: {lost:?}; {} in {}, {decision}; {:.0} s",
            moment.as_secs_f32(),
            after["version"],
            after["slot"],
            begin.elapsed().as_secs_f32(),
        );
        reached.insert(decision.to_owned());
    }
    eprintln!("{cuts} power cuts: {reached:?}");
    // As many cuts as usual that never catch the writing would show nothing.
    assert!(cuts < u64::from(CUTS) || reached.contains("interrupted"), "{reached:?}");
    let state = "systemctl is-system-running || systemctl --failed --no-legend";
    card.ssh_until(&mut machine, state, |state| state == "running").await;
    card.switch_off(machine).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "make image-test builds what it boots"]
async fn a_raspberry_pi_3_starts_daemon_and_board() {
    let card = Card::new();
    let on = Instant::now();
    let mut machine = card.switch_on_pi();
    // Nothing but its console leads into this machine: the boot loader is stopped, and what it adds to the kernel's
    // command line lets systemd say there what starts and what fails. The emulator's watchdog bites at once.
    let more = "setenv joinery_args systemd.watchdog_sec=0 systemd.show_status=1\rrun bootcmd";
    at_prompt(&mut machine, "\nU-Boot> ", 1, more).await;
    awaited(&mut machine, "multi-user.target", async |machine| {
        plain(&machine.console()).contains("Reached target multi-user.target").then_some(())
    })
    .await;
    eprintln!(
        "Raspberry Pi 3: multi-user.target {:.0} s after power-on",
        on.elapsed().as_secs_f32()
    );
    // Both tell systemd when they are ready. What decides about a system comes after both.
    for said in [
        "Started joineryd.service",
        "Started joinery-board.service",
        "Finished joinery-mark-good.service",
    ] {
        awaited(&mut machine, said, async |machine| {
            plain(&machine.console()).contains(said).then_some(())
        })
        .await;
    }
    let console = plain(&machine.console());
    eprintln!(
        "{}",
        console
            .lines()
            .filter(|line| line.contains("  OK  ] ") && line.contains("joinery"))
            .collect::<Vec<_>>()
            .join("\n")
    );
    assert!(!console.contains("[FAILED]") && !console.contains("[DEPEND]"), "{console}");
    machine.cut_power().unwrap();
    card.disk.cut(|| false).unwrap();
    assert!(card.as_flashed(2) && card.as_flashed(3), "a root slot was written to");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "make image-test builds what it boots"]
async fn the_kernel_for_a_raspberry_pi_5_starts_and_is_updated() {
    // No emulator has this board. Its kernel also knows the machine `virt`, here with a device tree that says that it is one.
    let pi5 = "fdt addr ${fdt_addr}\r\
               fdt set / compatible \"raspberrypi,5-model-b\" \"brcm,bcm2712\"\rrun bootcmd";
    let mut card = Card::new();
    let mut machine = card.switch_on();
    at_prompt(&mut machine, PROMPT, 1, pi5).await;
    let mut client = card.client(&mut machine).await;
    client.create(WALLET).await;
    let mut known = BTreeSet::from([client.address(0).await]);
    the_kernel_for_a_pi_5_runs(&card, &mut machine).await;

    let ready = |update: &Value| update["state"] == "idle";
    update_when(&mut machine, &client, "updates are possible", ready).await;
    install(&mut card, &mut machine, &client).await;
    let prompts = machine.console().matches(PROMPT).count();
    client.post("/update/restart", json!({})).await.expect(202);
    at_prompt(&mut machine, PROMPT, prompts + 1, pi5).await;
    client = card.unlocked(&mut machine).await;
    let kept = |update: &Value| update["state"] == "idle" && update["last"]["code"] == "updated";
    let update = update_when(&mut machine, &client, "the update is kept", kept).await;
    assert_eq!(update["slot"], "B", "{update}");
    assert!(known.insert(client.address(0).await), "an address was handed out twice");
    the_kernel_for_a_pi_5_runs(&card, &mut machine).await;
    card.switch_off(machine).await;
    assert!(card.as_flashed(2), "a root slot was written to");
}

/// The right kernel runs, and everything with it.
async fn the_kernel_for_a_pi_5_runs(card: &Card, machine: &mut Machine) {
    let state = "systemctl is-system-running || systemctl --failed --no-legend";
    card.ssh_until(machine, state, |state| state == "running").await;
    let drivers = "uname -r && find /usr/lib/modules/$(uname -r) -name 'rp1*' -printf '%f\\n'";
    let drivers = card.ssh(machine, drivers).await;
    eprintln!("kernel for a Raspberry Pi 5: {drivers:?}");
    assert!(drivers.contains("rp1_pci.ko"), "{drivers}");
    let lockdown = card.ssh(machine, "cat /sys/kernel/security/lockdown").await;
    assert!(lockdown.contains("[integrity]"), "{lockdown}");
}

/// Text of a terminal without what colours it.
fn plain(text: &str) -> String {
    let mut out = String::new();
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        if c == '\x1b' {
            // Up to the letter that ends the sequence.
            chars.by_ref().skip(1).find(char::is_ascii_alphabetic);
        } else {
            out.push(c);
        }
    }
    out
}

/// Uploads the good bundle and waits until it is installed.
async fn install(card: &mut Card, machine: &mut Machine, client: &support::Client) {
    let accepted = client.try_upload("/api/v1/update", card.bundle("new")).await.unwrap();
    assert_eq!(accepted.status, 202, "{}", accepted.body);
    update_when(machine, client, "it is installed", |update| update["state"] == "restart_needed")
        .await;
}
