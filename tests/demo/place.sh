# A place for the demonstration and the bench: built tools, a private cluster, a temporary
# directory, all gone at the end. Sourced by bash; expects `name` and `mb` (size of the dump).
# Gives: $place, the tools on PATH, PG* of the superuser, functions below.

project=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
cd "$project"
PATH=$PATH:$HOME/.cargo/bin
for variable in $(compgen -e); do
    case $variable in PG*|RG_CONFIG|DATABASE_URL) unset "$variable" ;; esac
done
export LC_ALL=C.UTF-8

stop() { printf '%s: %s\n' "$name" "$*" >&2; exit 1; }
now() { printf '%s' "${EPOCHREALTIME/,/.}"; }
seconds_since() { awk -v a="$1" -v b="$(now)" 'BEGIN { printf "%.1f s", b - a }'; }

tmp=${TMPDIR:-/tmp}
# Rows, dump, stored backup, restored copy, the replaced copy, write-ahead log: about ten times.
free_mb=$(df -Pm "$tmp" | awk 'NR == 2 { print $4 }')
[ "$free_mb" -ge $((mb * 10)) ] || stop "$tmp has $free_mb MB free, $((mb * 10)) are needed; set TMPDIR"

# Ends what was started here and nothing else: the cluster's holder ends when its input does.
cleanup() {
    local status=$?
    trap - EXIT INT TERM
    stop_cluster
    [ -z "${s3_holder:-}" ] || { exec {s3_in}>&-; wait "$s3_holder" 2>/dev/null || true; }
    cd /
    [ -z "${place:-}" ] || rm -rf "$place"
    exit $status
}
trap cleanup EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

build() {
    echo "building ($1); the first time takes some minutes"
    local profile=$1 directory=$1
    [ "$profile" != dev ] || directory=debug
    local quiet=--quiet
    [ ! -t 2 ] || quiet=
    cargo build $quiet --profile "$profile" --bin rg-backup --bin rg-restore --bin rg-bucket --bin rg-envgen --bin kit-cluster \
        --bin kit-uploads --bin kit-measure --bin kit-s3 || stop "the tools do not build"
    local target=${CARGO_TARGET_DIR:-target}
    PATH=$(cd "$target/$directory" && pwd):$PATH
}

make_place() {
    place=$(mktemp -d "$tmp/rg-$name-XXXXXX")
    chmod 755 "$place" # the server's own user must reach its directory in here
}

# A private S3 server with a bucket for backups and the app's with so many objects.
start_s3() {
    mkfifo "$place/s3.in"
    (umask 077; RG_TEST_TMP=$place exec kit-s3 serve "$1" <"$place/s3.in" >"$place/s3.env") &
    s3_holder=$!
    exec {s3_in}>"$place/s3.in"
    until [ -s "$place/s3.env" ]; do
        kill -0 "$s3_holder" 2>/dev/null || stop "the private S3 server did not start"
        sleep 0.1
    done
    local line
    read -r line <"$place/s3.env"
    eval "export $line"
}

stop_cluster() {
    [ -n "${cluster_holder:-}" ] || return 0
    exec {cluster_in}>&-
    wait "$cluster_holder" 2>/dev/null || true
    cluster_holder=
}

start_cluster() {
    coproc CLUSTER { RG_TEST_TMP=$place exec kit-cluster max_wal_size=2GB "$@"; }
    cluster_holder=$CLUSTER_PID
    exec {cluster_in}>&"${CLUSTER[1]}" && eval "exec ${CLUSTER[1]}>&-"
    local line
    read -r line <&"${CLUSTER[0]}" || stop "the private cluster did not start"
    eval "$line"
    export PGHOST PGPORT PGUSER PGPASSWORD
    PATH=$server_bin:$PATH
}

# Runs a tool without the superuser's connection, which is ours alone: all it may know is rg.toml.
without_pg() { (unset PGHOST PGPORT PGUSER PGPASSWORD PGDATABASE S3_ENDPOINT S3_BUCKET S3_KEY S3_SECRET; exec "$@"); }

# The role and database of production, its env file (0600), a key, and rg.toml.
deploy() {
    local password
    password=$(head -c 16 /dev/urandom | od -An -tx1 | tr -d ' \n')
    # As the postgres image makes it: the app's role is the container's superuser.
    psql -Xq -v ON_ERROR_STOP=1 >/dev/null <<SQL
CREATE ROLE rgrid_production LOGIN SUPERUSER PASSWORD '$password';
CREATE DATABASE rgrid_production OWNER rgrid_production;
SQL
    (umask 077; cat >"$place/.env.production" <<ENV
DATABASE_URL=postgresql+asyncpg://rgrid_production:$password@127.0.0.1:$PGPORT/rgrid_production
ENV
    [ -z "${S3_ENDPOINT:-}" ] || cat >>"$place/.env.production" <<ENV
MINIO_ENDPOINT=${S3_ENDPOINT#http://}
MINIO_BUCKET_NAME=$S3_BUCKET
MINIO_ACCESS_KEY=$S3_KEY
MINIO_SECRET_KEY=$S3_SECRET
ENV
    [ -z "${S3_ENDPOINT:-}" ] || cat >"$place/offsite.env" <<ENV
AWS_ACCESS_KEY_ID=$S3_KEY
AWS_SECRET_ACCESS_KEY=$S3_SECRET
ENV
    )
    age-keygen -o "$place/backup.key" 2>"$place/recipient"
    recipient=$(sed -n 's/^Public key: //p' "$place/recipient")
    configure zstd "$place/rg.toml"
    export RG_CONFIG=$place/rg.toml
}

configure() {
    cat >"$2" <<TOML
host  = "demo"
state = "$place/state"

[stores.local]
url = "file://$place/backups"
${S3_ENDPOINT:+
[stores.offsite]
url = \"s3://acme-backups/vps-1\"
endpoint = \"$S3_ENDPOINT\"
credentials = \"$place/offsite.env\"
}
[encryption]
recipients = ["$recipient"]

[environments.production]
env_file = "$place/.env.production"

[environments.production.database]
url = "\$DATABASE_URL"
compression = "$1"
schedule = "0 2 * * *"
keep = { days = 7 }
required_tables = ["executions", "workers"]

[environments.production.files.uploads]
path = "$place/uploads"
schedule = "0 3 * * 0"
keep = { days = 60 }
TOML
    [ -z "${S3_ENDPOINT:-}" ] || cat >>"$2" <<'TOML'

[environments.production.buckets.artifacts]
endpoint = "http://$MINIO_ENDPOINT"
name = "$MINIO_BUCKET_NAME"
access_key = "$MINIO_ACCESS_KEY"
secret_key = "$MINIO_SECRET_KEY"
access = "private"
versioning = true
noncurrent_days = 30
TOML
}

load() {
    psql -Xq -v ON_ERROR_STOP=1 -v scale="$(awk -v mb="$mb" 'BEGIN { print mb / 300 }')" \
        -d rgrid_production -f tests/demo/load.sql >/dev/null
}
