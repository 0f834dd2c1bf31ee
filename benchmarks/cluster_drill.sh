#!/usr/bin/env bash
# Sweeps on a Ray cluster of three hosts, all on this machine, which lose a worker, and their head with the driver.
#
#   benchmarks/cluster_drill.sh [--data NAME|PATH] [--budget CPU-SECONDS] [--folder FOLDER]
#
# 1. `ray up` with examples/cluster/on-premises.yaml, a sweep by `ray submit`; one worker host is switched off, and
#    replaced by an empty one; then the head, on which the driver is; `ray down`, `ray up`, and the same `ray submit`.
# 2. The same, shorter, by `ray job submit`: a worker is switched off and replaced.
# Every host has namespaces of its own, so that nothing else on this machine is seen or killed. Needs root, sshd, rsync.
# Prints what was done, when, and what the journals say of it; exits with 0 if all trials went on from their last
# checkpoints, no account has a gap and no cap was exceeded.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
repo=$(dirname "$here")
venv=$repo/.venv
data=digits budget=320 folder=
while [ $# -gt 0 ]; do
  case $1 in
  --data) data=$2 ;;
  --budget) budget=$2 ;;
  --folder) folder=$2 ;;
  *)
    echo "cluster_drill.sh: unknown option $1; there are --data, --budget and --folder" >&2
    exit 2
    ;;
  esac
  shift 2
done

skip() {
  echo "skipped: $1"
  exit 0
}
[ "$(id -u)" = 0 ] || skip 'the hosts of the drill need namespaces of their own, which only root can make'
for tool in sshd rsync ip unshare; do
  PATH=$PATH:/usr/sbin command -v $tool >/dev/null || skip "there is no $tool here (on Debian: apt-get install openssh-server rsync iproute2)"
done
[ -x "$venv/bin/ray" ] || skip "there is no $venv: run make install first"
unshare --net --pid --fork --mount true 2>/dev/null || skip 'namespaces cannot be made here'
export HOME=$(getent passwd 0 | cut -d: -f6)

folder=${folder:-$(mktemp -d -t nr-XXXXXX)}
mkdir -p "$folder"/{shared,op,dist,source}
python=$(dirname "$(dirname "$(readlink -f "$venv/bin/python")")")
kept=("$python" "$folder/shared")
case $data in /*) kept+=("$data") ;; esac
id=$$
# So that what is killed has saved something before.
often='--set searches=3 --set search.checkpoint_seconds=3'
declare -A init

# Hosts

in_net() { ip netns exec "nr$id-$1" "${@:2}"; }

host_up() { # NAME ADDRESS
  ip netns add "nr$id-$1"
  # The same hardware address for the same host, as nobody would tell the others of a new one.
  ip link add "v$id$1" netns "nr$id-op" type veth peer name eth0 address "02:00:00:00:00:${2##*.}" netns "nr$id-$1"
  in_net op ip link set "v$id$1" master br0 up
  in_net "$1" ip link set lo up
  in_net "$1" ip address add "$2/24" dev eth0
  in_net "$1" ip link set eth0 up
  # Ray takes the address of the default route for its own.
  in_net "$1" ip route add default via 10.77.0.1
  in_net "$1" ip route add unreachable 169.254.0.0/16
  for server in $(awk '/^nameserver/ && $2 ~ /\./ {print $2}' /etc/resolv.conf); do
    in_net "$1" ip route replace unreachable "$server" 2>/dev/null || true
  done
  in_net "$1" env -i HOME="$HOME" PATH="$PATH:/usr/sbin" unshare --pid --fork --kill-child --mount --uts --ipc --mount-proc \
    "$here/cluster/host.sh" "$1" "$venv" "$folder/op/key.pub" "${kept[@]}" >>"$folder/$1.log" 2>&1 &
  init[$1]=$!
  until in_net op bash -c ": </dev/tcp/$2/22" 2>/dev/null; do sleep 0.2; done
}

host_off() { # NAME: as if its power failed
  kill -9 "$(pgrep -P "${init[$1]}")" 2>/dev/null || true
  wait "${init[$1]}" 2>/dev/null || true
  unset "init[$1]"
  ip netns del "nr$id-$1"
  while in_net op ip link show "v$id$1" >/dev/null 2>&1; do sleep 0.1; done
}

# `ray up` and `ray down` kill every Ray process that they see, so that the operator sees none but its own.
op() {
  in_net op env -i HOME="$folder/op" TMPDIR="$folder/op" RAY_TMPDIR="$folder/op" PATH="$venv/bin:$PATH" TERM=dumb \
    RAY_AUTH_MODE=disabled RAY_UP_enable_autoscaler_v2=0 RAY_USAGE_STATS_ENABLED=0 COLUMNS=100 \
    unshare --pid --fork --kill-child --mount --mount-proc "$@"
}

finish() {
  trap - EXIT
  for name in "${!init[@]}"; do host_off "$name"; done
  ip netns del "nr$id-op" 2>/dev/null || true
}
trap finish EXIT
trap 'exit 130' INT TERM

# What happens when

note() { # WHAT
  echo "$(date +%s.%N) $1" >>"$folder/$sweep.events"
  echo "$(date +%H:%M:%S) $1"
}

sweep_says() { # EXPRESSION of `status`, as plain data
  "$venv/bin/nasib-ray" status "$folder/shared/$sweep" --json 2>/dev/null |
    "$venv/bin/python" -c "import json, sys; status = json.load(sys.stdin); print(int($1))" 2>/dev/null || echo 0
}

until_so() { # EXPRESSION, SECONDS
  local end=$((SECONDS + $2))
  until [ "$(sweep_says "$1")" = 1 ]; do
    if [ $SECONDS -gt $end ]; then
      echo "within $2 s it did not come to: $1" >&2
      exit 1
    fi
    sleep 0.5
  done
}

both_at_work='sum(trial["state"] == "running" for trial in status["trials"]) == 2'

submit() {
  op ray submit "$cluster" "$repo/examples/sweep.py" -- nasib-ray/examples/digits.yaml --data "$data" \
    --budget "${budget}cpu-seconds" --storage "$folder/shared" --name "$sweep" $often
}

# The operator's machine, and the hosts

ip netns add "nr$id-op"
in_net op ip link set lo up
in_net op ip link add br0 type bridge
in_net op ip address add 10.77.0.1/24 dev br0
in_net op ip link set br0 up
ssh-keygen -q -t ed25519 -N '' -f "$folder/op/key" <<<y >/dev/null
cp -r "$repo"/{nasib_ray,schedulers,trainables,setup.py,pyproject.toml,README.md,LICENSE} "$folder/source"
"$venv/bin/python" -m pip wheel --quiet --no-deps --wheel-dir "$folder/dist" "$folder/source"
cluster=$folder/cluster.yaml
sed -e 's/HEAD_ADDRESS/10.77.0.10/; s/WORKER_ADDRESS_1/10.77.0.11/; s/WORKER_ADDRESS_2/10.77.0.12/; s/USER/root/' \
  -e "s#~/.ssh/id_ed25519#$folder/op/key#; s#: dist#: $folder/dist#; s#: examples #: $repo/examples #" \
  -e 's/--address=/--num-cpus=1 --address=/' "$repo/examples/cluster/on-premises.yaml" >"$cluster"

sweep=submitted
for host in head:10.77.0.10 w1:10.77.0.11 w2:10.77.0.12; do host_up ${host%:*} ${host#*:}; done
note 'ray up'
op ray up -y "$cluster" >"$folder/up-1.log" 2>&1
note 'ray submit'
submit >"$folder/submit-1.log" 2>&1 &
driver=$!
until_so "$both_at_work and status['spent_device_seconds'] > 0.2 * $budget" 150
note 'worker 1 is switched off'
host_off w1
sleep 15
note 'worker 1 is replaced by an empty machine'
host_up w1 10.77.0.11
until_so "$both_at_work and status['spent_device_seconds'] > 0.4 * $budget" 150
# Long enough for the new worker to have come to a report.
sleep 15
note 'the head is switched off, and the driver with it'
host_off head
wait $driver && { echo 'ray submit ended with 0 though its driver was gone' >&2; exit 1; }
note 'the head is replaced by an empty machine; ray down'
host_up head 10.77.0.10
op ray down -y "$cluster" >"$folder/down-1.log" 2>&1
note 'ray up'
op ray up -y "$cluster" >"$folder/up-2.log" 2>&1
note 'ray submit'
submit >"$folder/submit-2.log" 2>&1
note 'ray submit has ended with 0'

sweep=job
op ray dashboard "$cluster" >"$folder/dashboard.log" 2>&1 &
forwarding=$!
until in_net op bash -c ': </dev/tcp/127.0.0.1/8265' 2>/dev/null; do sleep 0.5; done
mkdir "$folder/job"
cp "$repo/examples/digits.yaml" "$folder/job"
note 'ray job submit'
op ray job submit --address http://127.0.0.1:8265 --working-dir "$folder/job" -- nasib-ray sweep digits.yaml \
  --address auto --data "$data" --budget "$((budget / 2)) cpu-seconds" --storage "$folder/shared" --name "$sweep" \
  $often >"$folder/job.log" 2>&1 &
driver=$!
until_so "$both_at_work and status['spent_device_seconds'] > 0.1 * $budget" 150
note 'worker 2 is switched off, and replaced by an empty machine'
host_off w2
host_up w2 10.77.0.12
wait $driver
note 'ray job submit has ended with 0'
kill $forwarding 2>/dev/null || true
op ray down -y "$cluster" >"$folder/down-2.log" 2>&1
note 'ray down'

"$venv/bin/python" "$here/cluster/account.py" "$folder" submitted job
