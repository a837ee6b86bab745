//! What the reference's configuration file holds by default (`spec/api.md` 10).

/// Section, field, value. Fields that are only comments in the reference's file are not here.
pub(super) const DEFAULTS: &[(&str, &[(&str, &str)])] = &[
    (
        "POLICY",
        &[
            ("tx_fees", "3"),
            ("tx_fees_factor", "0.2"),
            ("max_sweep_fee_change", "0.8"),
            ("minimum_makers", "4"),
            ("gaplimit", "6"),
            ("absurd_fee_per_kb", "350000"),
            ("taker_utxo_retries", "3"),
            ("taker_utxo_age", "5"),
            ("taker_utxo_amtpercent", "20"),
            ("max_sats_freeze_reuse", "-1"),
            ("merge_algorithm", "default"),
            ("tx_broadcast", "random-peer"),
            ("interest_rate", "0.015"),
            ("bondless_makers_allowance", "0.125"),
            ("bond_value_exponent", "1.3"),
            ("accept_commitment_broadcasts", "1"),
            ("segwit", "true"),
            ("native", "true"),
            ("wallet_caching_disabled", "false"),
            ("commit_file_location", "cmtdata/commitments.json"),
            ("commitment_list_location", "cmtdata/commitmentlist"),
            // Set by the reference daemon at its start: unconfirmed coins are shown and spendable.
            ("listunspent_args", "[0]"),
        ],
    ),
    (
        "DAEMON",
        &[
            ("no_daemon", "1"),
            ("daemon_port", "27183"),
            ("daemon_host", "localhost"),
            ("use_ssl", "false"),
        ],
    ),
    (
        // `network` is put in by `Settings`, and no credentials ever are.
        "BLOCKCHAIN",
        &[
            ("blockchain_source", "bitcoin-rpc"),
            ("rpc_host", "localhost"),
            ("rpc_port", ""),
            ("rpc_wallet_file", ""),
        ],
    ),
    (
        "MESSAGING:hackint",
        &[
            ("channel", "joinmarket-pit"),
            ("host", "ncwkrwxpq2ikcngxq3dy2xctuheniggtqeibvgofixpzvrwpa77tozqd.onion"),
            ("port", "6667"),
            ("usessl", "false"),
            ("socks5", "true"),
            ("socks5_host", "localhost"),
            ("socks5_port", "9050"),
        ],
    ),
    (
        "MESSAGING:onion",
        &[
            ("type", "onion"),
            ("socks5_host", "localhost"),
            ("socks5_port", "9050"),
            ("tor_control_host", "localhost"),
            ("tor_control_port", "9051"),
            ("onion_serving_host", "127.0.0.1"),
            ("onion_serving_port", "8080"),
            ("hidden_service_dir", ""),
            ("regtest_count", "0,0"),
            (
                "directory_nodes",
                "satoshi2vcg5e2ept7tjkzlkpomkobqmgtsjzegg6wipnoajadissead.onion:5222,\
                 jmarketxf5wc4aldf3slm5u6726zsky52bqnfv6qyxe5hnafgly6yuyd.onion:5222,\
                 coinjointovy3eq5fjygdwpkbcdx63d7vd4g32mw7y553uj3kjjzkiqd.onion:5222,\
                 nakamotourflxwjnjpnrk7yc2nhkf6r62ed4gdfxmmn5f4saw5q5qoyd.onion:5222,\
                 odpwaf67rs5226uabcamvypg3y4bngzmfk7255flcdodesqhsvkptaid.onion:5222",
            ),
        ],
    ),
    ("LOGGING", &[("console_log_level", "INFO"), ("color", "true")]),
    (
        "TIMEOUT",
        &[
            ("maker_timeout_sec", "60"),
            ("unconfirm_timeout_sec", "180"),
            ("confirm_timeout_hours", "6"),
        ],
    ),
    (
        "PAYJOIN",
        &[
            ("payjoin_version", "1"),
            ("disable_output_substitution", "0"),
            ("max_additional_fee_contribution", "default"),
            ("min_fee_rate", "1.1"),
            ("onion_socks5_host", "localhost"),
            ("onion_socks5_port", "9050"),
            ("tor_control_host", "localhost"),
            ("tor_control_port", "9051"),
            ("onion_serving_host", "127.0.0.1"),
            ("onion_serving_port", "8082"),
            ("hidden_service_ssl", "false"),
        ],
    ),
    (
        "YIELDGENERATOR",
        &[
            ("ordertype", "reloffer"),
            ("cjfee_a", "500"),
            ("cjfee_r", "0.00002"),
            ("cjfee_factor", "0.1"),
            ("txfee_contribution", "0"),
            ("txfee_contribution_factor", "0.3"),
            ("minsize", "100000"),
            ("size_factor", "0.1"),
        ],
    ),
    (
        "SNICKER",
        &[
            ("enabled", "false"),
            ("lowest_net_gain", "0"),
            ("servers", "cn5lfwvrswicuxn3gjsxoved6l2gu5hdvwy5l3ev7kg6j7lbji2k7hqd.onion,"),
            ("polling_interval_minutes", "60"),
        ],
    ),
];
