//! The connection.

use super::{Command, CommandSpec, Scope, row};

pub(super) const ROWS: &[CommandSpec] = &[
    row(Command::Auth, "auth", -2, Scope::Connection)
        .flags(&["noscript", "loading", "stale", "fast", "no_auth", "allow_busy"])
        .acl(&["connection"])
        .about("connection", "1.0.0", "Authenticate to the server")
        .complexity("O(N) where N is the number of passwords defined for the user")
        .history(&[("6.0.0", "Added ACL style (username and password).")])
        .arguments("username:string@6.0.0? password:string"),
    row(Command::Client, "client", -2, Scope::Connection)
        .about("connection", "2.4.0", "A container for client connection commands")
        .complexity("Depends on subcommand.")
        .subcommands(&[
            row(Command::Client, "client|caching", 3, Scope::Connection)
                .flags(&["noscript", "loading", "stale"])
                .acl(&["connection"])
                .about(
                    "connection",
                    "6.0.0",
                    "Instruct the server about tracking or not keys in the next request",
                )
                .complexity("O(1)")
                .arguments("mode:oneof(yes=YES no=NO)"),
            row(Command::Client, "client|getname", 2, Scope::Connection)
                .flags(&["noscript", "loading", "stale"])
                .acl(&["connection"])
                .about("connection", "2.6.9", "Get the current connection name")
                .complexity("O(1)"),
            row(Command::Client, "client|getredir", 2, Scope::Connection)
                .flags(&["noscript", "loading", "stale"])
                .acl(&["connection"])
                .about("connection", "6.0.0", "Get tracking notifications redirection client ID if any")
                .complexity("O(1)"),
            row(Command::Client, "client|help", 2, Scope::Connection)
                .flags(&["loading", "stale"])
                .acl(&["connection"])
                .about("connection", "5.0.0", "Show helpful text about the different subcommands")
                .complexity("O(1)"),
            row(Command::Client, "client|id", 2, Scope::Connection)
                .flags(&["noscript", "loading", "stale"])
                .acl(&["connection"])
                .about("connection", "5.0.0", "Returns the client ID for the current connection")
                .complexity("O(1)"),
            row(Command::Client, "client|info", 2, Scope::Connection)
                .flags(&["noscript", "loading", "stale"])
                .acl(&["connection"])
                .tips(&["nondeterministic_output"])
                .about("connection", "6.2.0", "Returns information about the current client connection.")
                .complexity("O(1)"),
            row(Command::Client, "client|kill", -3, Scope::Connection)
                .flags(&["admin", "noscript", "loading", "stale"])
                .acl(&["connection"])
                .about("connection", "2.4.0", "Kill the connection of a client")
                .complexity("O(N) where N is the number of client connections")
                .history(&[
                    ("2.8.12", "Added new filter format."),
                    ("2.8.12", "`ID` option."),
                    ("3.2.0", "Added `master` type in for `TYPE` option."),
                    (
                        "5.0.0",
                        "Replaced `slave` `TYPE` with `replica`. `slave` still supported for \
             backward compatibility.",
                    ),
                    ("6.2.0", "`LADDR` option."),
                ])
                .arguments(
                    "filter:oneof(ip-port:string new-format:oneof*(client-id:integer=ID@2.8.12? \
             normal_master_slave_pubsub:oneof=TYPE@2.8.12?(normal=NORMAL \
             master=MASTER@3.2.0 slave=SLAVE replica=REPLICA@5.0.0 pubsub=PUBSUB) \
             username:string=USER? ip-port:string=ADDR? ip-port:string=LADDR@6.2.0? \
             yes/no:string=SKIPME?))",
                ),
            row(Command::Client, "client|list", -2, Scope::Connection)
                .flags(&["admin", "noscript", "loading", "stale"])
                .acl(&["connection"])
                .tips(&["nondeterministic_output"])
                .about("connection", "2.4.0", "Get the list of client connections")
                .complexity("O(N) where N is the number of client connections")
                .history(&[
                    ("2.8.12", "Added unique client `id` field."),
                    ("5.0.0", "Added optional `TYPE` filter."),
                    ("6.0.0", "Added `user` field."),
                    (
                        "6.2.0",
                        "Added `argv-mem`, `tot-mem`, `laddr` and `redir` fields and the optional \
             `ID` filter.",
                    ),
                    ("7.0.0", "Added `resp`, `multi-mem`, `rbs` and `rbp` fields."),
                    ("7.0.3", "Added `ssub` field."),
                ])
                .arguments(
                    "normal_master_replica_pubsub:oneof=TYPE@5.0.0?(normal=NORMAL master=MASTER \
             replica=REPLICA pubsub=PUBSUB) id:block=ID@6.2.0?(client-id:integer*)",
                ),
            row(Command::Client, "client|no-evict", 3, Scope::Connection)
                .flags(&["admin", "noscript", "loading", "stale"])
                .acl(&["connection"])
                .about("connection", "7.0.0", "Set client eviction mode for the current connection")
                .complexity("O(1)")
                .arguments("enabled:oneof(on=ON off=OFF)"),
            row(Command::Client, "client|no-touch", 3, Scope::Connection)
                .flags(&["noscript", "loading", "stale"])
                .acl(&["connection"])
                .about(
                    "connection",
                    "7.2.0",
                    "Controls whether commands sent by the client affect the LRU/LFU of accessed keys.",
                )
                .complexity("O(1)")
                .arguments("enabled:oneof(on=ON off=OFF)"),
            row(Command::Client, "client|pause", -3, Scope::Connection)
                .flags(&["admin", "noscript", "loading", "stale"])
                .acl(&["connection"])
                .about("connection", "2.9.50", "Stop processing commands from clients for some time")
                .complexity("O(1)")
                .history(&[("6.2.0", "`CLIENT PAUSE WRITE` mode added along with the `mode` option.")])
                .arguments("timeout:integer mode:oneof@6.2.0?(write=WRITE all=ALL)"),
            row(Command::Client, "client|reply", 3, Scope::Connection)
                .flags(&["noscript", "loading", "stale"])
                .acl(&["connection"])
                .about("connection", "3.2.0", "Instruct the server whether to reply to commands")
                .complexity("O(1)")
                .arguments("on_off_skip:oneof(on=ON off=OFF skip=SKIP)"),
            row(Command::Client, "client|setinfo", 4, Scope::Connection)
                .flags(&["noscript", "loading", "stale"])
                .acl(&["connection"])
                .tips(&["request_policy:all_nodes", "response_policy:all_succeeded"])
                .about("connection", "7.2.0", "Sets information specific to the client or connection.")
                .complexity("O(1)")
                .arguments("attr:oneof(libname:string=LIB-NAME libver:string=LIB-VER)"),
            row(Command::Client, "client|setname", 3, Scope::Connection)
                .flags(&["noscript", "loading", "stale"])
                .acl(&["connection"])
                .about("connection", "2.6.9", "Set the current connection name")
                .complexity("O(1)")
                .arguments("connection-name:string"),
            row(Command::Client, "client|tracking", -3, Scope::Connection)
                .flags(&["noscript", "loading", "stale"])
                .acl(&["connection"])
                .about("connection", "6.0.0", "Enable or disable server assisted client side caching support")
                .complexity("O(1). Some options may introduce additional complexity.")
                .arguments(
                    "status:oneof(on=ON off=OFF) client-id:integer=REDIRECT? \
             prefix:string=PREFIX?*+ bcast=BCAST? optin=OPTIN? optout=OPTOUT? \
             noloop=NOLOOP?",
                ),
            row(Command::Client, "client|trackinginfo", 2, Scope::Connection)
                .flags(&["noscript", "loading", "stale"])
                .acl(&["connection"])
                .about(
                    "connection",
                    "6.2.0",
                    "Return information about server assisted client side caching for the \
             current connection",
                )
                .complexity("O(1)"),
            row(Command::Client, "client|unblock", -3, Scope::Connection)
                .flags(&["admin", "noscript", "loading", "stale"])
                .acl(&["connection"])
                .about(
                    "connection",
                    "5.0.0",
                    "Unblock a client blocked in a blocking command from a different connection",
                )
                .complexity("O(log N) where N is the number of client connections")
                .arguments("client-id:integer timeout_error:oneof?(timeout=TIMEOUT error=ERROR)"),
            row(Command::Client, "client|unpause", 2, Scope::Connection)
                .flags(&["admin", "noscript", "loading", "stale"])
                .acl(&["connection"])
                .about("connection", "6.2.0", "Resume processing of clients that were paused")
                .complexity("O(N) Where N is the number of paused clients"),
        ]),
    row(Command::Echo, "echo", 2, Scope::Connection)
        .flags(&["loading", "stale", "fast"])
        .acl(&["connection"])
        .about("connection", "1.0.0", "Echo the given string")
        .complexity("O(1)")
        .arguments("message:string"),
    row(Command::Hello, "hello", -1, Scope::Connection)
        .flags(&["noscript", "loading", "stale", "fast", "no_auth", "allow_busy"])
        .acl(&["connection"])
        .about("connection", "6.0.0", "Handshake with Redis")
        .complexity("O(1)")
        .history(&[(
            "6.2.0",
            "`protover` made optional; when called without arguments the command \
             reports the current connection's context.",
        )])
        .arguments(
            "arguments:block?(protover:integer \
             username_password:block=AUTH?(username:string password:string) \
             clientname:string=SETNAME?)",
        ),
    row(Command::Ping, "ping", -1, Scope::Connection)
        .flags(&["fast"])
        .acl(&["connection"])
        .tips(&["request_policy:all_shards", "response_policy:all_succeeded"])
        .about("connection", "1.0.0", "Ping the server")
        .complexity("O(1)")
        .arguments("message:string?"),
    row(Command::Quit, "quit", -1, Scope::Connection)
        .flags(&["noscript", "loading", "stale", "fast", "no_auth", "allow_busy"])
        .acl(&["connection"])
        .about("connection", "1.0.0", "Close the connection")
        .complexity("O(1)"),
    row(Command::Reset, "reset", 1, Scope::Connection)
        .flags(&["noscript", "loading", "stale", "fast", "no_auth", "allow_busy"])
        .acl(&["connection"])
        .about("connection", "6.2.0", "Reset the connection")
        .complexity("O(1)"),
    row(Command::Select, "select", 2, Scope::Connection)
        .flags(&["loading", "stale", "fast"])
        .acl(&["connection"])
        .about("connection", "1.0.0", "Change the selected database for the current connection")
        .complexity("O(1)")
        .arguments("index:integer"),
];
