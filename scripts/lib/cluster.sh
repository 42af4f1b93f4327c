# Sourced by scripts that break clusters: a cluster of the built binaries on free ports, in a folder of its own.
# RINGFORT_BIN names another folder of binaries (default target/release).
top=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
bin=$(realpath "${RINGFORT_BIN:-$top/target/release}")
up_pid=
ports_len=0

port_is_free() { ! (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }

# Sets `base` to the first of COUNT free ports in a row, below the range from which the system takes ports for connections.
find_ports() { # COUNT
  local offset
  for _ in $(seq 50); do
    base=$((10000 + (RANDOM * 32768 + RANDOM) % 20000))
    for offset in $(seq 0 $(($1 - 1))); do port_is_free $((base + offset)) || continue 2; done
    return
  done
  echo "no $1 free ports in a row" >&2
  return 1
}

# Writes DIR/cluster.toml; the proxy listens on $base.
write_config() { # DIR NODES PARTITIONS DURABILITY
  local n
  ports_len=$((1 + 2 * $2))
  find_ports "$ports_len"
  {
    printf '[cluster]\nname = "trial"\npartitions = %s\ndurability = "%s"\n[proxy]\nlisten = "127.0.0.1:%s"\n' "$3" "$4" "$base"
    for n in $(seq "$2"); do
      printf '[[node]]\nid = "n%s"\nclient = "127.0.0.1:%s"\npeer = "127.0.0.1:%s"\n' "$n" $((base + 2 * n - 1)) $((base + 2 * n))
    done
  } >"$1/cluster.toml"
}

# Starts the cluster of DIR, with faults enabled, and waits until it is ready.
start_cluster() { # DIR
  "$bin/ringfort" up --faults --config "$1/cluster.toml" --data-dir "$1/data" >"$1/up.out" 2>&1 &
  up_pid=$!
  for _ in $(seq 600); do
    if grep -q 'is ready on' "$1/up.out"; then return; fi
    kill -0 "$up_pid" 2>/dev/null || break
    sleep 0.1
  done
  echo "the cluster did not start:" >&2
  tail -n 40 "$1/up.out" >&2
  return 1
}

# Stops it: INT in order, KILL all processes at once. A killed process is not gone at once, nor is its port free.
stop_cluster() { # SIGNAL
  local children= offset
  [ -n "$up_pid" ] || return 0
  if [ "$1" = KILL ]; then children=$(ps --ppid "$up_pid" -o pid=); fi
  # shellcheck disable=SC2086 # several numbers
  kill "-$1" "$up_pid" $children 2>/dev/null || true
  wait "$up_pid" 2>/dev/null || true
  up_pid=
  for _ in $(seq 100); do
    for offset in $(seq 0 $((ports_len - 1))); do
      port_is_free $((base + offset)) || { sleep 0.1; continue 2; }
    done
    break
  done
  [ ! -f "${dir:-}/up.out" ] || mv "$dir/up.out" "$dir/up.$(date +%s).log"
}
