//! The connection.

use super::{Command, CommandSpec, Scope, row};

pub(super) const ROWS: &[CommandSpec] = &[
    row(Command::Client, "client", -2, Scope::Connection)
        .about("connection", "2.4.0", "A container for client connection commands")
        .complexity("Depends on subcommand.")
        .subcommands(&[
            row(Command::Client, "client|getname", 2, Scope::Connection)
                .flags(&["noscript", "loading", "stale"])
                .acl(&["connection"])
                .about("connection", "2.6.9", "Get the current connection name")
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
