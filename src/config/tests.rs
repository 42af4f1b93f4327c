use super::*;

/// A right file; tests change one line of it.
const GOOD: &str = "\
[cluster]
name = \"demo\"
replicas = 3

[proxy]
listen = \"127.0.0.1:6379\"

[[node]]
id = \"n1\"
client = \"127.0.0.1:7001\"
peer = \"127.0.0.1:7101\"
weight = 1

[[node]]
id = \"n2\"
client = \"127.0.0.1:7002\"
peer = \"127.0.0.1:7102\"

[[node]]
id = \"n3\"
client = \"127.0.0.1:7003\"
peer = \"127.0.0.1:7103\"
";

fn good() -> Config {
    Config::parse(GOOD, "x.toml").expect("GOOD is a right file")
}

/// The one line of error that GOOD gives with `from` replaced by `to`.
fn error(from: &str, to: &str) -> String {
    assert!(GOOD.contains(from), "{from:?} is not in GOOD");
    lines(&GOOD.replacen(from, to, 1)).join("\n")
}

fn lines(text: &str) -> Vec<String> {
    Config::parse(text, "x.toml").expect_err("the text is wrong").lines().to_vec()
}

#[test]
fn every_file_under_configs_loads() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("configs");
    let mut loaded = 0;
    for entry in std::fs::read_dir(folder).expect("configs/ is there") {
        let path = entry.expect("an entry").path();
        let config = Config::load(&path).unwrap_or_else(|error| panic!("{error}"));
        assert!(config.proxy.is_some(), "{}: no proxy", path.display());
        loaded += 1;
    }
    assert!(2 <= loaded);
}

#[test]
fn built_in_file_is_three_nodes_and_a_proxy() {
    let config = Config::parse(LOCAL_TOML, "local.toml").unwrap();
    assert_eq!(config.cluster.name, "demo");
    assert_eq!(config.cluster.partitions.get(), 64);
    assert_eq!(config.cluster.durability, Durability::Buffered);
    assert_eq!(config.cluster.maxmemory_bytes, 1 << 30);
    assert_eq!(config.cluster.maxmemory_policy, Policy::NoEviction);
    assert_eq!(config.proxy.unwrap().listen, "127.0.0.1:6379".parse().unwrap());
    let clients: Vec<String> =
        config.nodes.iter().map(|node| format!("{} {}", node.id, node.client)).collect();
    assert_eq!(clients, ["n1 127.0.0.1:7001", "n2 127.0.0.1:7002", "n3 127.0.0.1:7003"]);
}

#[test]
fn defaults_of_the_built_in_file_are_the_defaults_of_the_code() {
    let local = Config::parse(LOCAL_TOML, "local.toml").unwrap().cluster;
    let bare = good().cluster;
    assert_eq!(local, bare);
}

#[test]
fn one_clear_line_for_each_mistake() {
    let table = [
        ("weight = 1", "wieght = 1", "x.toml:12: unknown key 'wieght' in [[node]]; did you mean 'weight'?"),
        ("weight = 1", "listen = 1", "x.toml:12: unknown key 'listen' in [[node]]; it belongs in [proxy]"),
        (
            "weight = 1",
            "colour = 1",
            "x.toml:12: unknown key 'colour' in [[node]]; keys: id, client, tls_client, peer, proxy, tls_proxy, metrics, \
             weight, zone",
        ),
        ("[proxy]", "[prxy]", "x.toml:5: unknown key 'prxy' in the file; did you mean 'proxy'?"),
        ("weight = 1", "weight = \"1\"", "x.toml:12: 'weight' in [[node]] must be a whole number, not text"),
        ("weight = 1", "weight = -1", "x.toml:12: 'weight' in [[node]] is -1: use a whole number from 0 up"),
        (
            "weight = 1",
            "weight = 1001",
            "x.toml:12: 'weight' in [[node]] is 1001: use 0 (holds nothing) to 256",
        ),
        ("name = \"demo\"\n", "", "x.toml:1: key 'name' is missing in [cluster]"),
        ("name = \"demo\"", "name = \"\"", "x.toml:2: 'name' in [cluster] is empty: give it a name"),
        (
            "name = \"demo\"",
            "name = \"../x\"",
            "x.toml:2: 'name' in [cluster] is '../x': use 1 to 64 letters, digits, '-', '_' and '.', starting with a \
             letter, digit or '_'",
        ),
        (
            "id = \"n2\"",
            "id = \"n1\"",
            "x.toml:15: duplicate id 'n1' in [[node]]: line 9 has it; ids are unique and never reused",
        ),
        (
            "127.0.0.1:7002",
            "127.0.0.1:7101",
            "x.toml:16: address 127.0.0.1:7101 (client of n2) is taken: line 11 has 127.0.0.1:7101 (peer of n1)",
        ),
        (
            "127.0.0.1:7002",
            "localhost:7002",
            "x.toml:16: 'client' in [[node]] is 'localhost:7002': write IP:PORT, for example 127.0.0.1:7001",
        ),
        (
            "127.0.0.1:7002",
            "127.0.0.1:0",
            "x.toml:16: 'client' in [[node]] is '127.0.0.1:0': port 0 is no fixed address; use 1 to 65535",
        ),
        (
            "127.0.0.1:7002",
            "10.0.0.2:7002",
            "x.toml:16: address 10.0.0.2:7002 (client of n2) is not loopback: set 'peer_secret_file' in [cluster] to a \
             file with a secret that all nodes share",
        ),
        (
            "127.0.0.1:7002",
            "0.0.0.0:7002",
            "x.toml:16: 'client' in [[node]] is '0.0.0.0:7002': others are told this address, so name the one they reach",
        ),
        (
            "replicas = 3",
            "replicas = 2",
            "x.toml:3: 'replicas' in [cluster] is 2: use 1 (no copy) or 3 (survives the loss of a node)",
        ),
        (
            "replicas = 3",
            "partitions = 100",
            "x.toml:3: 'partitions' in [cluster] is 100: use a power of two from 16 to 1024",
        ),
        (
            "replicas = 3",
            "partitions = 65600",
            "x.toml:3: 'partitions' in [cluster] is 65600: use a power of two from 16 to 1024",
        ),
        (
            "replicas = 3",
            "durability = \"none\"",
            "x.toml:3: 'durability' in [cluster] is 'none': use \"buffered\" or \"fsync\"",
        ),
        (
            "replicas = 3",
            "maxmemory = \"1tb\"",
            "x.toml:3: 'maxmemory' in [cluster] is '1tb': write bytes with kb, mb or gb, for example \"1gb\"; 0 = no limit",
        ),
        (
            "replicas = 3",
            "move_rate = \"500kb\"",
            "x.toml:3: 'move_rate' in [cluster] is 512000: use \"1mb\" to \"1024gb\" in a second",
        ),
        (
            "replicas = 3",
            "moves_at_once = 0",
            "x.toml:3: 'moves_at_once' in [cluster] is 0: use 1 to 64 for each node",
        ),
        (
            "replicas = 3",
            "down_after = \"5 m\"",
            "x.toml:3: 'down_after' in [cluster] is no time from \"10s\" to \"30d\": write a number with s, m, h or d",
        ),
        (
            "replicas = 3",
            "maxmemory_policy = \"lru\"",
            "x.toml:3: 'maxmemory_policy' in [cluster] is 'lru': use one of \"volatile-lru\", \"volatile-lfu\", \
             \"volatile-random\", \"volatile-ttl\", \"allkeys-lru\", \"allkeys-lfu\", \"allkeys-random\", \"noeviction\"",
        ),
        (
            "replicas = 3",
            "peer_secret_file = 3",
            "x.toml:3: 'peer_secret_file' in [cluster] must be text in quotes, not a whole number",
        ),
    ];
    for (from, to, expected) in table {
        assert_eq!(error(from, to), expected, "{from:?} -> {to:?}");
    }
}

#[test]
fn too_few_nodes_for_the_replicas_says_what_to_do() {
    let first_node_only = GOOD.split("\n[[node]]\nid = \"n2\"").next().unwrap();
    let expected = "in [cluster] needs 3 nodes, the file has 1: add [[node]] sections or set replicas = 1";
    assert_eq!(lines(first_node_only), [format!("x.toml:3: replicas = 3 {expected}")]);
    let default = first_node_only.replace("replicas = 3\n", "");
    assert_eq!(lines(&default), [format!("x.toml:1: replicas = 3 (the default) {expected}")]);
    let one = first_node_only.replace("replicas = 3", "replicas = 1");
    assert_eq!(Config::parse(&one, "x.toml").unwrap().nodes.len(), 1);
}

#[test]
fn broken_toml_names_the_line() {
    let all = lines("[cluster]\nname = \"demo\nreplicas = 3\n");
    assert_eq!(all.len(), 1);
    assert!(all[0].starts_with("x.toml:2: not TOML: "), "{}", all[0]);
    assert_eq!(lines("[cluster]\nname = \"a\"\nname = \"b\"\n"), ["x.toml:3: not TOML: duplicate key"]);
}

#[test]
fn missing_sections_are_named() {
    assert_eq!(
        lines(""),
        [
            "x.toml:1: section [cluster] with the key 'name' is missing",
            "x.toml:1: no node: add [[node]] sections with 'id', 'client' and 'peer'",
        ]
    );
    assert_eq!(
        lines(
            &GOOD
                .replace("[[node]]", "[node]")
                .split("\n[node]\nid = \"n2\"")
                .next()
                .unwrap()
                .replace("replicas = 3", "replicas = 1")
        ),
        ["x.toml:8: a node is written [[node]], with two brackets",]
    );
    assert_eq!(
        lines(&GOOD.replacen("listen = \"127.0.0.1:6379\"\n", "", 1)),
        ["x.toml:5: key 'listen' is missing in [proxy]"]
    );
    assert_eq!(error("id = \"n2\"\n", ""), "x.toml:14: key 'id' is missing in [[node]]");
}

#[test]
fn all_problems_are_reported_in_the_order_of_the_file() {
    let text = GOOD.replace("weight = 1", "wieght = 1").replace("replicas = 3", "replicas = 5");
    let all = lines(&text);
    assert_eq!(all.len(), 2, "{all:?}");
    assert!(all[0].starts_with("x.toml:3: ") && all[1].starts_with("x.toml:12: "), "{all:?}");
}

#[test]
fn two_machines_may_use_the_same_loopback_port() {
    let text = GOOD
        .replace("replicas = 3", "peer_secret_file = \"secret\"")
        .replace("peer = \"127.0.0.1:7101\"", "peer = \"10.0.0.1:7100\"\nmetrics = \"127.0.0.1:7300\"")
        .replace("peer = \"127.0.0.1:7102\"", "peer = \"10.0.0.2:7100\"\nmetrics = \"127.0.0.1:7300\"");
    Config::parse(&text, "x.toml").unwrap();
    let same = text.replace("peer = \"10.0.0.2:7100\"", "peer = \"10.0.0.1:7101\"");
    assert_eq!(lines(&same).len(), 1);
}

#[test]
fn an_unspecified_address_takes_the_port_of_every_loopback_address() {
    let text = GOOD
        .replace("replicas = 3", "peer_secret_file = \"secret\"")
        .replace("listen = \"127.0.0.1:6379\"", "listen = \"0.0.0.0:7002\"");
    assert_eq!(
        lines(&text),
        [
            "x.toml:16: address 127.0.0.1:7002 (client of n2) is taken: line 6 has 0.0.0.0:7002 (listen of [proxy])"
        ]
    );
}

#[test]
fn memory_takes_redis_units() {
    let of = |value: &str| {
        let text = GOOD.replace("replicas = 3", &format!("maxmemory = {value}"));
        Config::parse(&text, "x.toml").unwrap().cluster.maxmemory_bytes
    };
    assert_eq!([of("0"), of("4096"), of("\"0\"")], [0, 4096, 0]);
    assert_eq!(
        [of("\"1k\""), of("\"1KB\""), of("\"3m\""), of("\"3mb\"")],
        [1_000, 1_024, 3_000_000, 3 << 20]
    );
    assert_eq!([of("\"2g\""), of("\"2gb\"")], [2_000_000_000, 2 << 30]);
    let huge = error("replicas = 3", "maxmemory = \"99999999999999gb\"");
    assert!(huge.contains("'maxmemory' in [cluster] is '99999999999999gb'"), "{huge}");
}

#[test]
fn times_take_units_and_have_bounds() {
    let of = |value: &str| {
        let text = GOOD.replace("replicas = 3", &format!("down_after = {value}"));
        Config::parse(&text, "x.toml").map(|config| config.cluster.moving.down_after_s)
    };
    assert_eq!(
        [of("90"), of("\"90\""), of("\"90s\""), of("\"2m\""), of("\"3h\""), of("\"30d\"")],
        [Ok(90), Ok(90), Ok(90), Ok(120), Ok(10_800), Ok(2_592_000)]
    );
    for wrong in ["9", "\"31d\"", "\"\"", "\"m\"", "\"5µ\"", "\"99999999999999999d\"", "5.0", "-5"] {
        assert!(of(wrong).is_err(), "{wrong}");
    }
}

#[test]
fn hash_ignores_comments_order_file_name_and_what_is_no_membership() {
    let hash = good().hash();
    assert_eq!(Config::parse(GOOD, "another name").unwrap().hash(), hash);
    let commented = format!(
        "# hello\n{}",
        GOOD.replace("weight = 1", "zone = \"\" # nothing\nmetrics = \"127.0.0.1:1\"")
    );
    assert_eq!(Config::parse(&commented, "x.toml").unwrap().hash(), hash);
    let mut turned = good();
    turned.nodes.reverse();
    turned.proxy = None;
    turned.cluster.peer_secret_file = Some("elsewhere".into());
    assert_eq!(turned.hash(), hash);
}

#[test]
fn hash_changes_with_each_membership_value() {
    let changes: [fn(&mut Config); 15] = [
        |c| c.cluster.name.push('x'),
        |c| c.cluster.partitions = PartitionCount::new(128).unwrap(),
        |c| c.cluster.replicas = 1,
        |c| c.cluster.durability = Durability::Fsync,
        |c| c.cluster.maxmemory_bytes = 0,
        |c| c.cluster.maxmemory_policy = Policy::AllKeysLru,
        |c| c.cluster.moving.at_once = 9,
        |c| c.nodes[0].id.0.push('x'),
        |c| c.nodes[0].client.set_port(1),
        |c| c.nodes[0].peer.set_port(1),
        |c| c.nodes[0].proxy = Some("127.0.0.1:1".parse().unwrap()),
        |c| c.nodes[0].tls_client = Some("127.0.0.1:1".parse().unwrap()),
        |c| c.nodes[0].tls_proxy = Some("127.0.0.1:2".parse().unwrap()),
        |c| c.nodes[0].weight = 2,
        |c| c.nodes[0].zone.push('x'),
    ];
    let mut hashes = vec![good().hash()];
    for change in changes {
        let mut config = good();
        change(&mut config);
        hashes.push(config.hash());
    }
    let all = hashes.len();
    hashes.sort_unstable();
    hashes.dedup();
    assert_eq!(hashes.len(), all);
}

#[test]
fn hash_is_stable_across_builds() {
    assert_eq!(
        good().hash(),
        11_795_873_530_895_261_658,
        "a change here stops nodes of two versions from forming a cluster"
    );
}

#[test]
fn unreadable_files_give_one_clear_line() {
    let folder = std::env::temp_dir();
    let error = |path: &Path| Config::load(path).expect_err("cannot be read").to_string();
    assert_eq!(error(Path::new("/no/such.toml")), "/no/such.toml: cannot be read: no such file or directory");
    assert_eq!(error(&folder), format!("{}: cannot be read: is a directory", folder.display()));
    assert_eq!(
        error(Path::new("/dev/zero")),
        "/dev/zero: is larger than 1048576 bytes: is it a config file?"
    );
}

#[test]
fn relative_paths_count_from_the_folder_of_the_file() {
    let folder = Folder::new("paths");
    let text = GOOD
        .replace("replicas = 3", "peer_secret_file = \"peer.secret\"")
        .replace(
            "[proxy]",
            "[tls]\ncert_file = \"a.crt\"\nkey_file = \"/b.key\"\nca_file = \"c/ca.crt\"\n[proxy]",
        )
        .replace("6379\"", "6379\"\ntls_listen = \"127.0.0.1:6380\"");
    let config = Config::load(&folder.write("x.toml", &text)).unwrap();
    assert_eq!(config.cluster.peer_secret_file, Some(folder.0.join("peer.secret")));
    let tls = config.tls.unwrap();
    assert_eq!(tls.cert_file, FileKey { path: folder.0.join("a.crt"), line: 6 });
    assert_eq!(tls.key_file.path, Path::new("/b.key"));
    assert_eq!(tls.ca_file.unwrap().path, folder.0.join("c/ca.crt"));
}

/// A folder that is removed at the end.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("ringfort-config-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.0.join(name);
        std::fs::write(&path, text).unwrap();
        path
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

mod tls {
    use super::*;

    /// GOOD with a section [tls] of these lines, served everywhere.
    fn text(lines: &str) -> String {
        let mut text =
            GOOD.replace("[proxy]", &format!("[tls]\n{lines}\n[proxy]\ntls_listen = \"127.0.0.1:6380\""));
        for n in 1..=3 {
            let client = format!("client = \"127.0.0.1:700{n}\"");
            text = text.replace(&client, &format!("{client}\ntls_client = \"127.0.0.1:740{n}\""));
        }
        text
    }

    const PAIR: &str = "cert_file = \"a.crt\"\nkey_file = \"a.key\"";

    #[test]
    fn clients_are_asked_when_there_is_an_authority() {
        let of = |more: &str| {
            let config = Config::parse(&text(&format!("{PAIR}\n{more}")), "x.toml").unwrap();
            config.tls.unwrap().auth_clients
        };
        assert_eq!(of(""), AuthClients::No);
        assert_eq!(of("ca_file = \"ca\""), AuthClients::Yes);
        assert_eq!(of("ca_file = \"ca\"\nauth_clients = \"no\""), AuthClients::No);
        assert_eq!(of("ca_file = \"ca\"\nauth_clients = \"optional\""), AuthClients::Optional);
    }

    #[test]
    fn one_clear_line_for_each_mistake() {
        let good = text(PAIR);
        assert!(Config::parse(&good, "x.toml").is_ok());
        let no_addresses = format!("{}\n[tls]\n{PAIR}", GOOD);
        let no_section = GOOD.replace("[proxy]", "[proxy]\ntls_listen = \"127.0.0.1:6380\"");
        let table = [
            (text("key_file = \"k\""), "x.toml:5: key 'cert_file' is missing in [tls]"),
            (
                text("cert_file = \"\"\nkey_file = \"k\""),
                "x.toml:6: 'cert_file' in [tls] is empty: name a file",
            ),
            (
                text(&format!("{PAIR}\nauth_clients = \"yes\"")),
                "x.toml:8: 'auth_clients' in [tls] needs 'ca_file': name the PEM file of the authority that signs clients' \
                 certificates",
            ),
            (
                text(&format!("{PAIR}\nca_file = \"c\"\nauth_clients = \"true\"")),
                "x.toml:9: 'auth_clients' in [tls] is 'true': use \"no\", \"optional\" or \"yes\"",
            ),
            (
                no_section,
                "x.toml:6: tls_listen of [proxy] needs a section [tls] with 'cert_file' and 'key_file'",
            ),
            (
                no_addresses,
                "x.toml:24: section [tls] serves no address: give 'tls_listen' in [proxy], or 'tls_client' or 'tls_proxy' in \
                 [[node]], or leave the section out",
            ),
            (
                good.replace("tls_client = \"127.0.0.1:7402\"\n", ""),
                "x.toml:20: node n2 has no 'tls_client' and others have: clients that come by TLS are sent from node to \
                 node, so give it to each [[node]]",
            ),
            (
                good.replace("weight = 1", "tls_proxy = \"127.0.0.1:1\""),
                "x.toml:17: 'tls_proxy' in [[node]] needs 'proxy': it is the same proxy by TLS",
            ),
            (
                good.replace("7402", "7401"),
                "x.toml:22: address 127.0.0.1:7401 (tls_client of n2) is taken: line 15 has 127.0.0.1:7401 (tls_client of n1)",
            ),
        ];
        for (text, expected) in table {
            assert_eq!(lines(&text), [expected], "{text}");
        }
    }

    #[test]
    fn wrong_files_are_named_with_their_key_and_line() {
        let folder = Folder::new("tls");
        let key = || rcgen::KeyPair::generate().unwrap();
        let (right, other) = (key(), key());
        let cert =
            rcgen::CertificateParams::new(vec!["localhost".to_owned()]).unwrap().self_signed(&right).unwrap();
        let check = || {
            let path = folder.write("x.toml", &text(PAIR));
            let error = Config::load(&path).unwrap().load_tls(&path).err().map(|error| error.to_string());
            error.map(|error| error.replace(&format!("{}/", folder.0.display()), ""))
        };
        let not_there = |line: u8, key: &str, file: &str| {
            Some(format!(
                "x.toml:{line}: '{key}' in [tls]: {file}: cannot be read: no such file or directory"
            ))
        };
        assert_eq!(check(), not_there(6, "cert_file", "a.crt"));
        folder.write("a.crt", &cert.pem());
        assert_eq!(check(), not_there(7, "key_file", "a.key"));
        folder.write("a.key", &other.serialize_pem());
        let expected = "x.toml:7: 'key_file' in [tls]: a.key: is not the key of the certificate in a.crt: use the two that \
                        were made together";
        assert_eq!(check(), Some(expected.to_owned()));
        folder.write("a.key", &right.serialize_pem());
        assert_eq!(check(), None);
    }
}

mod any_text {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn never_panics_and_errors_are_single_lines(cut in 0..GOOD.len(), insert in "[\\[\\]a-z0-9=\"\\n. -]{0,12}") {
            let text = format!("{}{insert}{}", &GOOD[..cut], &GOOD[cut..]);
            if let Err(error) = Config::parse(&text, "x.toml") {
                prop_assert!(!error.lines().is_empty());
                for line in error.lines() {
                    prop_assert!(line.starts_with("x.toml:") && !line.contains('\n'), "{line:?}");
                }
            }
        }
    }
}
