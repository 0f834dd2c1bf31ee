#!/usr/bin/env bash
# One host of the drill: started in namespaces of its own (network, processes, mounts, names), whose process 1 it is.
# Its home, /tmp, /run and /dev/shm are empty; nasib-ray is not installed, though what it needs is.
#   host.sh NAME VENV AUTHORIZED_KEYS KEPT...      KEPT: folders that are the same on all hosts
set -euo pipefail
name=$1 venv=$2 keys=$3
shift 3

mount --make-rprivate /
hostname "$name"
disk=$(mktemp -d)
mount -t tmpfs -o mode=755 tmpfs "$disk"
mkdir -p "$disk"/{home,tmp,upper,work}
chmod 1777 "$disk/tmp"

# Of the home and of /tmp only what is told stays to be seen.
for kept in "$venv" "$@"; do
  for hidden in "$HOME:$disk/home" "/tmp:$disk/tmp"; do
    case $kept in
    "${hidden%%:*}"/*)
      inside=${hidden#*:}${kept#"${hidden%%:*}"}
      mkdir -p "$inside"
      mount --rbind "$kept" "$inside"
      ;;
    esac
  done
done

# What is installed here is gone with the host.
mount -t overlay overlay -o "lowerdir=$venv,upperdir=$disk/upper,workdir=$disk/work" "$venv"
rm -rf "$venv"/lib/python3*/site-packages/*nasib_ray*

mkdir -p "$disk/home/.ssh"
cp "$keys" "$disk/home/.ssh/authorized_keys"
chmod 700 "$disk/home/.ssh"
{
  echo "export PATH=$venv/bin:\$PATH RAY_AUTH_MODE=disabled"
  # These never see the internet, and would wait for it.
  echo 'export RAY_USAGE_STATS_ENABLED=0'
} >"$disk/home/.bashrc"
echo 'test -f ~/.bashrc && . ~/.bashrc' >"$disk/home/.profile"

mount --rbind "$disk/home" "$HOME"
mount --rbind "$disk/tmp" /tmp
mount -t tmpfs tmpfs /run
mount -t tmpfs -o size=2g tmpfs /dev/shm
mkdir -p /run/sshd
ssh-keygen -q -t ed25519 -N '' -f /run/host_key
/usr/sbin/sshd -o HostKey=/run/host_key -o PidFile=/run/sshd.pid -o UsePAM=no -o StrictModes=no \
  -o PasswordAuthentication=no -o AuthorizedKeysFile=.ssh/authorized_keys

# Process 1 must collect what its children leave behind.
while :; do
  wait -n 2>/dev/null || sleep 0.5
done
