use std::collections::BTreeSet;
use std::path::Path;

use super::*;

fn build(options: &Options, text: &str) -> Result<Config, ConfigError> {
    Config::build(options, File::parse(text, Path::new("test.toml"))?)
}

fn from_file(text: &str) -> Result<Config, ConfigError> {
    build(&Options { data_dir: Some("/data".into()), ..Options::default() }, text)
}

fn sentence(text: &str) -> String {
    from_file(text).expect_err("this is to be refused").to_string()
}

#[test]
fn defaults_are_safe() {
    let config = from_file("").unwrap();
    assert_eq!(config.network, Network::Mainnet);
    assert_eq!(config.http.listen, "127.0.0.1:28183".parse().unwrap());
    assert_eq!(config.http.wss_listen, "127.0.0.1:28283".parse().unwrap());
    assert!(config.http.tls && config.http.check_host);
    assert!(config.electrum.is_none());
}

#[test]
fn flags_win_over_the_file() {
    let options = Options {
        data_dir: Some("/flag".into()),
        network: Some("regtest".into()),
        electrum: Some("tcp://127.0.0.1:1".into()),
        listen: Some("127.0.0.1:0".into()),
        no_tls: Some(false),
        directory: Some(vec!["a.onion:5222".into()]),
        log_format: Some("json".into()),
        ..Options::default()
    };
    let file = r#"
        data_dir = "/file"
        network = "signet"
        [electrum]
        url = "ssl://other:2"
        allow_public = true
        [http]
        listen = "127.0.0.1:3"
        wss_listen = "127.0.0.1:4"
        tls = false
        [joinmarket]
        directories = ["b.onion:5222", "c.onion:5222"]
        [log]
        format = "text"
    "#;
    let config = build(&options, file).unwrap();
    assert_eq!(config.data_dir, Path::new("/flag"));
    assert_eq!(config.network, Network::Regtest);
    let electrum = config.electrum.unwrap();
    assert_eq!(electrum.server.to_string(), "tcp://127.0.0.1:1");
    assert!(electrum.allow_public_electrum, "from the file");
    assert_eq!(config.http.listen.port(), 0);
    assert_eq!(config.http.wss_listen.port(), 4, "from the file");
    assert!(config.http.tls);
    assert_eq!(config.joinmarket.directories.len(), 1);
    assert_eq!(config.log.format, LogFormat::Json);
}

#[test]
fn unknown_keys_are_refused_with_their_line() {
    assert_eq!(
        sentence("network = \"regtest\"\n[http]\nlisten = \"127.0.0.1:1\"\nlissten = 1\n"),
        "configuration file test.toml, line 4: unknown field `lissten`, expected one of `listen`, \
         `wss_listen`, `tls`, `plain_http_beyond_loopback`, `static_dir`, `names`, `check_host`, `origins`, \
         `public_yieldgen_report`, `connections`, `connections_per_address`, `handshake_timeout_s`, \
         `header_timeout_s`, `body_timeout_s`, `stall_timeout_s`"
    );
    assert!(sentence("[nothing]\n").contains("line 1: unknown field `nothing`"));
}

#[test]
fn each_bad_value_gets_one_sentence_that_names_its_setting() {
    for (text, expected) in [
        (
            "network = \"testnet\"",
            "network (--network) is \"testnet\": must be mainnet, signet, testnet4 or regtest",
        ),
        (
            "network = 3",
            "configuration file test.toml, line 1: invalid type: integer `3`, expected a string",
        ),
        ("network = \"main", "line 1: "),
        (
            "electrum.url = \"example.com:50002\"",
            "electrum.url (--electrum) is \"example.com:50002\": the URL must start with tcp:// or ssl://",
        ),
        (
            "electrum.url = \"tcp://1.2.3.4:50001\"",
            "electrum: tcp://1.2.3.4:50001 is not on a private network",
        ),
        (
            "electrum.url = \"tcp://u:hunter2@h:1\"",
            "is \"...@h:1\": the URL must not contain a user name or a password",
        ),
        (
            "electrum.proxy = \"http://h:1\"",
            "electrum.proxy (--proxy) is \"http://h:1\": the URL must start with socks5://",
        ),
        (
            "electrum.certificate_sha256 = \"ab\"",
            "electrum.certificate_sha256 is \"ab\": a SHA-256 fingerprint has 64",
        ),
        ("wallet.kdf_memory_mib = 18", "wallet.kdf_memory_mib is \"18\": must be from 19 to 256"),
        (
            "http.listen = \"localhost:1\"",
            "http.listen (--listen) is \"localhost:1\": must be an IP address with a port",
        ),
        (
            "http.listen = \"127.0.0.1:5\"\nhttp.wss_listen = \"127.0.0.1:5\"",
            "are the same address",
        ),
        ("http.listen = \"0.0.0.0\"\nhttp.tls = false", "only allowed on loopback addresses"),
        (
            "http.static_dir = \"/nowhere/at/all\"",
            "http.static_dir (--static-dir) is \"/nowhere/at/all\": must be an existing directory",
        ),
        (
            "http.names = [\"https://a\"]",
            "http.names is \"https://a\": must be host names without scheme and port",
        ),
        (
            "http.origins = [\"wallet.example\"]",
            "http.origins is \"wallet.example\": must be origins such as",
        ),
        ("http.origins = [\"*\"]", "http.origins is \"*\": must be origins such as"),
        ("http.connections = 0", "http.connections is \"0\": must be from 1 to 10000"),
        (
            "http.header_timeout_s = 99999",
            "http.header_timeout_s is \"99999\": must be from 1 to 3600 seconds",
        ),
        (
            "joinmarket.network = \"\"",
            "joinmarket.network (--jm-network) is \"\": must be 1 to 32 letters",
        ),
        ("joinmarket.socks = \"127.0.0.1\"", "joinmarket.socks is"),
        (
            "joinmarket.tor_control = \"9051\"",
            "joinmarket.tor_control is \"9051\": must be a loopback address with a port, \
             as in 127.0.0.1:9051, or unix: and an absolute path",
        ),
        (
            "joinmarket.tor_control = \"192.0.2.1:9051\"",
            "joinmarket.tor_control is \"192.0.2.1:9051\": must be a loopback",
        ),
        (
            "joinmarket.serve = \"0.0.0.0:8080\"",
            "joinmarket.serve is \"0.0.0.0:8080\": must be a loopback address",
        ),
        ("joinmarket.service = \"yes\"", "joinmarket.service is \"yes\": must be onion, plain"),
        ("joinmarket.service = \"plain\"", "joinmarket.service can be plain on regtest only"),
        ("[[joinmarket.irc]]\nport = 6667", "joinmarket.irc needs a host"),
        (
            "[[joinmarket.irc]]\nhost = \"irc.example:6697\"",
            "joinmarket.irc.host is \"irc.example:6697\": must be a host name or an address, without a port",
        ),
        (
            "[[joinmarket.irc]]\nhost = \"irc.example\"\nport = 0",
            "joinmarket.irc.port is \"0\": must be from 1 to 65535",
        ),
        (
            "[[joinmarket.irc]]\nhost = \"irc.example\"\nchannel = \"#joinmarket-pit\"",
            "joinmarket.irc.channel is \"#joinmarket-pit\": must be 1 to 40 letters, digits, hyphens, dots or underscores, without #",
        ),
        (
            "[[joinmarket.irc]]\nhost = \"irc.example\"\ncertificate_sha256 = \"ab\"",
            "joinmarket.irc.certificate_sha256 is \"ab\": a SHA-256 fingerprint has 64",
        ),
        (
            "[[joinmarket.irc]]\nhost = \"a.onion\"\ncertificate_sha256 = \"abababababababababababababababababababababababababababababababab\"",
            "joinmarket.irc.certificate_sha256 is of no use without tls",
        ),
        (
            "[[joinmarket.irc]]\nhost = \"a.onion\"\n[[joinmarket.irc]]\nhost = \"A.onion\"",
            "joinmarket.irc names a server twice",
        ),
        (
            "order_book.watch = \"never\"",
            "order_book.watch is \"never\": must be always, unlocked or off",
        ),
        (
            "order_book.listen = \"0.0.0.0:62601\"",
            "order_book.listen is \"0.0.0.0:62601\": must be off or a loopback address",
        ),
        (
            "joinmarket.directories = [\"a.onion\"]",
            "joinmarket.directories (--directory) is \"a.onion\": needs a port",
        ),
        (
            "board.socket = \"board.sock\"",
            "board.socket (--board-socket) is \"board.sock\": must be an absolute path",
        ),
        ("log.format = \"xml\"", "log.format (--log-format) is \"xml\": must be text or json"),
        ("log.filter = \"a=b=c\"", "log.filter is \"a=b=c\": must be a level or a list"),
    ] {
        let sentence = sentence(text);
        assert!(sentence.contains(expected), "{text}: {sentence}");
        assert!(!sentence.contains('\n'), "{sentence}");
        assert!(!sentence.contains("hunter2"), "{sentence}");
    }
}

#[test]
fn plain_http_leaves_the_machine_only_when_told_twice() {
    let text =
        "http.listen = \"0.0.0.0:1\"\nhttp.tls = false\nhttp.plain_http_beyond_loopback = true";
    assert!(!from_file(text).unwrap().http.tls);
}

/// The keys of a TOML table, `a.b` for nested ones.
fn keys(table: &toml::Table, prefix: &str, out: &mut BTreeSet<String>) {
    for (key, value) in table {
        match value {
            toml::Value::Table(inner) => keys(inner, &format!("{prefix}{key}."), out),
            toml::Value::Array(entries) if entries.iter().any(toml::Value::is_table) => {
                for entry in entries.iter().filter_map(toml::Value::as_table) {
                    keys(entry, &format!("{prefix}{key}."), out);
                }
            }
            _ => {
                out.insert(format!("{prefix}{key}"));
            }
        }
    }
}

/// The sample has every key commented out, so that as it stands it means the defaults.
fn uncommented_sample() -> String {
    SAMPLE
        .lines()
        .map(|line| match line.strip_prefix('#') {
            // "#key = value" is a setting, "# text" is text.
            Some(setting) if !setting.starts_with(' ') => setting,
            _ => line,
        })
        .collect::<Vec<_>>()
        .join("\n")
}

#[test]
fn shipped_sample_means_the_defaults() {
    let file = File::parse(SAMPLE, Path::new("joineryd.toml")).unwrap();
    assert_eq!(file, File::default());
}

#[test]
fn shipped_sample_is_valid_with_every_line_uncommented_and_documents_every_key() {
    let sample = uncommented_sample();
    let mut file = File::parse(&sample, Path::new("joineryd.toml")).unwrap();
    // What must exist on this machine.
    file.http.static_dir = Some(std::env::temp_dir());
    file.board.user = Some("root".to_owned());
    Config::build(&Options::default(), file).unwrap();

    let mut documented = BTreeSet::new();
    keys(&sample.parse().unwrap(), "", &mut documented);
    // An unknown key makes serde list the ones it knows: the list cannot be forgotten that way.
    let mut known = BTreeSet::new();
    for table in
        ["", "electrum.", "wallet.", "http.", "joinmarket.", "order_book.", "board.", "log."]
    {
        let error =
            File::parse(&format!("{table}zzz = 1"), Path::new("x")).unwrap_err().to_string();
        let (_, list) = error.split_once("expected").unwrap();
        for key in list.split('`').skip(1).step_by(2) {
            known.insert(format!("{table}{key}"));
        }
    }
    let error = File::parse("[[joinmarket.irc]]\nzzz = 1", Path::new("x")).unwrap_err().to_string();
    let (_, list) = error.split_once("expected").unwrap();
    known.extend(list.split('`').skip(1).step_by(2).map(|key| format!("joinmarket.irc.{key}")));
    for table in
        ["electrum", "wallet", "http", "joinmarket", "joinmarket.irc", "order_book", "board", "log"]
    {
        assert!(known.remove(table));
    }
    assert_eq!(documented, known);
}

#[test]
fn market_has_the_directories_of_its_chain_and_never_plain_ones_of_others() {
    let config = from_file("").unwrap();
    let found = market(&config);
    assert_eq!((found.jm_network.as_str(), found.directories.len()), ("mainnet", 7));
    assert_eq!(found.watch, crate::market::Watch::Always);
    assert_eq!(config.order_book.listen, "127.0.0.1:62601".parse().ok());
    assert!(!config.order_book.required);
    let plain = "joinmarket.directories = [\"127.0.0.1:5222\", \"directory.example:5222\"]";
    assert!(market(&from_file(plain).unwrap()).directories.is_empty());
    let config = from_file(&format!("network = \"regtest\"\n{plain}")).unwrap();
    let found = market(&config);
    assert_eq!((found.jm_network.as_str(), found.directories.len()), ("regtest", 1));
    assert_eq!(config.order_book.listen, None);
    let off = from_file("order_book.watch = \"off\"\norder_book.listen = \"off\"").unwrap();
    assert!(off.order_book.listen.is_none());
    assert!(crate::market::Market::new(market(&off)).is_none());
}

#[test]
fn maker_is_served_by_tor_except_on_regtest() {
    use joinery_net::onion::Serving;

    let serving = |text: &str| from_file(text).unwrap().joinmarket.serving();
    for network in ["mainnet", "signet", "testnet4"] {
        let serving = serving(&format!("network = \"{network}\""));
        assert!(matches!(serving, Some(Serving::Onion { .. })), "{network}: {serving:?}");
    }
    assert!(matches!(serving("network = \"regtest\""), Some(Serving::Plain { .. })));
    assert!(serving("joinmarket.service = \"off\"").is_none());
    let unix = "joinmarket = { tor_control = \"unix:/run/tor/control\", serve = \"127.0.0.1:1\" }";
    let Some(Serving::Onion { control, listen, .. }) = serving(unix) else { panic!("by Tor") };
    assert_eq!((control.to_string(), listen.port()), ("unix:/run/tor/control".into(), 1));
}

#[test]
fn irc_is_off_and_its_servers_have_what_they_usually_have() {
    assert!(from_file("").unwrap().joinmarket.irc.is_empty());
    let file = r#"
        [joinmarket]
        network = "signet"
        [[joinmarket.irc]]
        host = "abc.onion"
        [[joinmarket.irc]]
        host = "IRC.example"
        [[joinmarket.irc]]
        host = "127.0.0.1"
        port = 1
        channel = "pit"
        tls = true
    "#;
    let config = from_file(file).unwrap();
    let shown: Vec<_> = config
        .joinmarket
        .irc
        .iter()
        .map(|irc| {
            let server = &irc.server;
            (server.host(), server.port(), server.channel(), server.tls())
        })
        .collect();
    let expected = [
        ("abc.onion", 6667, "#joinmarket-pit-sig", false),
        ("irc.example", 6697, "#joinmarket-pit-sig", true),
        ("127.0.0.1", 1, "#pit-sig", true),
    ];
    assert_eq!(shown, expected);
    assert_eq!(market(&config).irc, config.joinmarket.irc);
    let pinned =
        format!("[[joinmarket.irc]]\nhost = \"h\"\ncertificate_sha256 = \"{}\"", "ab".repeat(32));
    let trust = from_file(&pinned).unwrap().joinmarket.irc[0].trust;
    assert_eq!(trust, TlsTrust::Pin(Fingerprint([0xab; 32])));
}

#[test]
fn what_needs_a_press_is_checked() {
    let config = from_file("").unwrap();
    assert_eq!(config.board.rules, joinery_api::ConsentRules::default());
    let with = |more: &str| from_file(&format!("[board]\nsocket = \"/run/board\"\n{more}\n"));
    let board =
        with("approve = [\"unlock\", \"send\"]\napprove_send_above_sats = 7\napprove_within_s = 5");
    let rules = board.unwrap().board.rules;
    assert!(rules.unlock && rules.send);
    assert_eq!((rules.send_above.to_sat(), rules.patience.as_secs()), (7, 5));
    assert_eq!(with("user = \"0\"").unwrap().board.user, Some(0));
    assert_eq!(with("user = \"root\"").unwrap().board.user, Some(0));
    for (wrong, part) in [
        ("approve = [\"everything\"]", "must be unlock or send"),
        ("approve_within_s = 0", "from 1 to 60"),
        ("approve_within_s = 61", "from 1 to 60"),
        ("approve_send_above_sats = 2100000000000001", "an amount"),
        ("user = \"nobody at all\"", "a user of this machine"),
        ("shutdown_command = [\"\"]", "a program"),
    ] {
        let text = with(wrong).expect_err(wrong).to_string();
        assert!(text.contains(part), "{text}");
    }
    assert!(sentence("[board]\napprove = [\"unlock\"]").contains("needs board.socket"));
    assert!(sentence("[board]\nsocket = \"board.sock\"").contains("absolute path"));
}
