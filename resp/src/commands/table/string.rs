//! Strings.

use super::{Command, CommandSpec, Scope, row};

pub(super) const ROWS: &[CommandSpec] = &[
    row(Command::Append, "append", 3, Scope::Slot)
        .flags(&["write", "denyoom", "fast"])
        .acl(&["string"])
        .key(&[&["RW", "insert"]])
        .about("string", "2.0.0", "Append a value to a key")
        .complexity(
            "O(1). The amortized time complexity is O(1) assuming the appended value is \
             small and the already present value is of any size, since the dynamic \
             string library used by Redis will double the free space available on every \
             reallocation.",
        )
        .arguments("key#0 value:string"),
    row(Command::Decr, "decr", 2, Scope::Slot)
        .flags(&["write", "denyoom", "fast"])
        .acl(&["string"])
        .key(&[&["RW", "access", "update"]])
        .about("string", "1.0.0", "Decrement the integer value of a key by one")
        .complexity("O(1)")
        .arguments("key#0"),
    row(Command::DecrBy, "decrby", 3, Scope::Slot)
        .flags(&["write", "denyoom", "fast"])
        .acl(&["string"])
        .key(&[&["RW", "access", "update"]])
        .about("string", "1.0.0", "Decrement the integer value of a key by the given number")
        .complexity("O(1)")
        .arguments("key#0 decrement:integer"),
    row(Command::DelIfEq, "delifeq", 3, Scope::Slot)
        .flags(&["write", "fast"])
        .acl(&["string"])
        .key(&[&["RM", "access", "delete"]])
        .about("string", "9.0.0", "Delete key if value matches string")
        .complexity("O(1)")
        .arguments("key#0 value:string"),
    row(Command::Get, "get", 2, Scope::Slot)
        .flags(&["readonly", "fast"])
        .acl(&["string"])
        .key(&[&["RO", "access"]])
        .about("string", "1.0.0", "Get the value of a key")
        .complexity("O(1)")
        .arguments("key#0"),
    row(Command::GetDel, "getdel", 2, Scope::Slot)
        .flags(&["write", "fast"])
        .acl(&["string"])
        .key(&[&["RW", "access", "delete"]])
        .about("string", "6.2.0", "Get the value of a key and delete the key")
        .complexity("O(1)")
        .arguments("key#0"),
    row(Command::GetEx, "getex", -2, Scope::Slot)
        .flags(&["write", "fast"])
        .acl(&["string"])
        .key(&[&["RW", "access", "update"]])
        .key_notes("RW and UPDATE because it changes the TTL")
        .about("string", "6.2.0", "Get the value of a key and optionally set its expiration")
        .complexity("O(1)")
        .arguments(
            "key#0 expiration:oneof?(seconds:integer=EX milliseconds:integer=PX \
             unix-time-seconds:unix-time=EXAT unix-time-milliseconds:unix-time=PXAT \
             persist=PERSIST)",
        ),
    row(Command::GetRange, "getrange", 4, Scope::Slot)
        .flags(&["readonly"])
        .acl(&["string"])
        .key(&[&["RO", "access"]])
        .about("string", "2.4.0", "Get a substring of the string stored at a key")
        .complexity(
            "O(N) where N is the length of the returned string. The complexity is \
             ultimately determined by the returned length, but because creating a \
             substring from an existing string is very cheap, it can be considered O(1) \
             for small strings.",
        )
        .arguments("key#0 start:integer end:integer"),
    row(Command::GetSet, "getset", 3, Scope::Slot)
        .flags(&["write", "denyoom", "fast"])
        .acl(&["string"])
        .key(&[&["RW", "access", "update"]])
        .about("string", "1.0.0", "Set the string value of a key and return its old value")
        .complexity("O(1)")
        .deprecated("6.2.0", "`SET` with the `!GET` argument")
        .arguments("key#0 value:string"),
    row(Command::Incr, "incr", 2, Scope::Slot)
        .flags(&["write", "denyoom", "fast"])
        .acl(&["string"])
        .key(&[&["RW", "access", "update"]])
        .about("string", "1.0.0", "Increment the integer value of a key by one")
        .complexity("O(1)")
        .arguments("key#0"),
    row(Command::IncrBy, "incrby", 3, Scope::Slot)
        .flags(&["write", "denyoom", "fast"])
        .acl(&["string"])
        .key(&[&["RW", "access", "update"]])
        .about("string", "1.0.0", "Increment the integer value of a key by the given amount")
        .complexity("O(1)")
        .arguments("key#0 increment:integer"),
    row(Command::IncrByFloat, "incrbyfloat", 3, Scope::Slot)
        .flags(&["write", "denyoom", "fast"])
        .acl(&["string"])
        .key(&[&["RW", "access", "update"]])
        .about("string", "2.6.0", "Increment the float value of a key by the given amount")
        .complexity("O(1)")
        .arguments("key#0 increment:double"),
    row(Command::Lcs, "lcs", -3, Scope::Slot)
        .flags(&["readonly"])
        .acl(&["string"])
        .keys_at(1, 2, 1, &[&["RO", "access"]])
        .about("string", "7.0.0", "Find longest common substring")
        .complexity("O(N*M) where N and M are the lengths of s1 and s2, respectively")
        .arguments(
            "key1#0 key2#0 len=LEN? idx=IDX? len:integer=MINMATCHLEN? \
             withmatchlen=WITHMATCHLEN?",
        ),
    row(Command::MGet, "mget", -2, Scope::Split)
        .flags(&["readonly", "fast"])
        .acl(&["string"])
        .tips(&["request_policy:multi_shard"])
        .keys_at(1, -1, 1, &[&["RO", "access"]])
        .about("string", "1.0.0", "Get the values of all the given keys")
        .complexity("O(N) where N is the number of keys to retrieve.")
        .arguments("key#0*"),
    row(Command::MSet, "mset", -3, Scope::Split)
        .flags(&["write", "denyoom"])
        .acl(&["string"])
        .tips(&["request_policy:multi_shard", "response_policy:all_succeeded"])
        .keys_at(1, -1, 2, &[&["OW", "update"]])
        .about("string", "1.0.1", "Set multiple keys to multiple values")
        .complexity("O(N) where N is the number of keys to set.")
        .arguments("key_value:block*(key#0 value:string)"),
    row(Command::MSetNx, "msetnx", -3, Scope::Slot)
        .flags(&["write", "denyoom"])
        .acl(&["string"])
        .tips(&["request_policy:multi_shard", "response_policy:agg_min"])
        .keys_at(1, -1, 2, &[&["OW", "insert"]])
        .about("string", "1.0.1", "Set multiple keys to multiple values, only if none of the keys exist")
        .complexity("O(N) where N is the number of keys to set.")
        .arguments("key_value:block*(key#0 value:string)"),
    row(Command::PSetEx, "psetex", 4, Scope::Slot)
        .flags(&["write", "denyoom"])
        .acl(&["string"])
        .key(&[&["OW", "update"]])
        .about("string", "2.6.0", "Set the value and expiration in milliseconds of a key")
        .complexity("O(1)")
        .arguments("key#0 milliseconds:integer value:string"),
    row(Command::Set, "set", -3, Scope::Slot)
        .flags(&["write", "denyoom"])
        .acl(&["string"])
        .key(&[&["RW", "access", "update", "variable_flags"]])
        .key_notes("RW and ACCESS due to the optional `GET` argument")
        .about("string", "1.0.0", "Set the string value of a key")
        .complexity("O(1)")
        .history(&[
            ("2.6.12", "Added the `EX`, `PX`, `NX` and `XX` options."),
            ("6.0.0", "Added the `KEEPTTL` option."),
            ("6.2.0", "Added the `GET`, `EXAT` and `PXAT` option."),
            ("7.0.0", "Allowed the `NX` and `GET` options to be used together."),
        ])
        .arguments(
            "key#0 value:string condition:oneof@2.6.12?(nx=NX xx=XX) get=GET@6.2.0? \
             expiration:oneof?(seconds:integer=EX@2.6.12 milliseconds:integer=PX@2.6.12 \
             unix-time-seconds:unix-time=EXAT@6.2.0 \
             unix-time-milliseconds:unix-time=PXAT@6.2.0 keepttl=KEEPTTL@6.0.0)",
        ),
    row(Command::SetEx, "setex", 4, Scope::Slot)
        .flags(&["write", "denyoom"])
        .acl(&["string"])
        .key(&[&["OW", "update"]])
        .about("string", "2.0.0", "Set the value and expiration of a key")
        .complexity("O(1)")
        .arguments("key#0 seconds:integer value:string"),
    row(Command::SetNx, "setnx", 3, Scope::Slot)
        .flags(&["write", "denyoom", "fast"])
        .acl(&["string"])
        .key(&[&["OW", "insert"]])
        .about("string", "1.0.0", "Set the value of a key, only if the key does not exist")
        .complexity("O(1)")
        .arguments("key#0 value:string"),
    row(Command::SetRange, "setrange", 4, Scope::Slot)
        .flags(&["write", "denyoom"])
        .acl(&["string"])
        .key(&[&["RW", "update"]])
        .about("string", "2.2.0", "Overwrite part of a string at key starting at the specified offset")
        .complexity(
            "O(1), not counting the time taken to copy the new string in place. \
             Usually, this string is very small so the amortized complexity is O(1). \
             Otherwise, complexity is O(M) with M being the length of the value \
             argument.",
        )
        .arguments("key#0 offset:integer value:string"),
    row(Command::StrLen, "strlen", 2, Scope::Slot)
        .flags(&["readonly", "fast"])
        .acl(&["string"])
        .key(&[&["RO"]])
        .about("string", "2.2.0", "Get the length of the value stored in a key")
        .complexity("O(1)")
        .arguments("key#0"),
    row(Command::SubStr, "substr", 4, Scope::Slot)
        .flags(&["readonly"])
        .acl(&["string"])
        .key(&[&["RO", "access"]])
        .about("string", "1.0.0", "Get a substring of the string stored at a key")
        .complexity(
            "O(N) where N is the length of the returned string. The complexity is \
             ultimately determined by the returned length, but because creating a \
             substring from an existing string is very cheap, it can be considered O(1) \
             for small strings.",
        )
        .deprecated("2.0.0", "`GETRANGE`")
        .arguments("key#0 start:integer end:integer"),
];
