#!/bin/bash
# `make demo`: backs up a database, an uploads directory and a bucket, here and off-site; destroys
# them, restores them, and proves row by row, file by file and object by object that all is as it
# was; then loses the whole machine and rebuilds it from off-site. Not 0 when anything differs.
#
# RG_DEMO_MB       size of the dump in megabytes (300)
# RG_DEMO_FILES    number of uploads (5000)
# RG_DEMO_OBJECTS  number of objects in the app's bucket (300)
# RG_DEMO_PROFILE  release (default), or dev for a quick look
# RG_DEMO_MAJOR    16 or 18: a server with pgvector from tests/majors.sh instead of the distribution's
# TMPDIR           where all of it lies until the end (/tmp)
set -euo pipefail
name=demo
mb=${RG_DEMO_MB:-300}
files=${RG_DEMO_FILES:-5000}
objects=${RG_DEMO_OBJECTS:-300}
source "$(dirname "$0")/place.sh"

bold='' plain=''
if [ -t 1 ] && [ -z "${NO_COLOR:-}" ]; then bold=$'\e[1m' plain=$'\e[0m'; fi
title() { printf '\n%s%s%s\n' "$bold" "$*" "$plain"; }

# Shows a command, runs it, demands this exit code, and says how long it took.
expect() {
    local wanted=$1 start code=0
    shift
    printf '\n%s$ %s%s\n' "$bold" "$*" "$plain"
    start=$(now)
    without_pg "$@" || code=$?
    printf '[exit %s, %s]\n' "$code" "$(seconds_since "$start")"
    [ "$code" = "$wanted" ] || stop "\`$*\` ended with $code instead of $wanted"
}
run() { expect 0 "$@"; }

# Every table and materialized view: rows and a checksum that does not depend on their order.
database_digest() {
    local table
    psql -XAtq -d rgrid_production -c "SELECT format('%I.%I', n.nspname, c.relname)
        FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
        WHERE c.relkind IN ('r', 'm') AND n.nspname !~ '^(pg_|information_schema)' ORDER BY 1" |
    while read -r table; do
        psql -XAtq -F ' ' -v ON_ERROR_STOP=1 -d rgrid_production -c "SELECT \$name\$$table\$name\$,
            count(*), md5(sum(('x' || left(h, 16))::bit(64)::bigint::numeric)::text
                || sum(('x' || right(h, 16))::bit(64)::bigint::numeric)::text)
            FROM (SELECT md5(t::text) AS h FROM $table t) AS hashed" </dev/null
    done
    psql -XAtq -d rgrid_production -c "SELECT 'sequence', schemaname, sequencename, last_value
        FROM pg_sequences ORDER BY 2, 3"
    psql -XAtq -d rgrid_production -c "SELECT 'index', indexdef FROM pg_indexes
        WHERE schemaname !~ '^pg_' ORDER BY 2"
}
# Every path with its kind, mode, owner and time, and every file's SHA-256.
tree_digest() {
    (cd "$place/uploads" && find . -printf '%y %m %U:%G %T@ %p\n' | sort &&
        find . -type f -print0 | sort -z | xargs -0 -r sha256sum)
}
# Demands that what is there now is what was there before.
prove() {
    local start differ=0
    start=$(now)
    database_digest >"$place/rows.now" || stop "cannot read the restored rows"
    tree_digest >"$place/tree.now" || stop "cannot read the restored uploads"
    kit-s3 digest >"$place/objects.now" || stop "cannot read the restored bucket"
    diff "$place/objects.before" "$place/objects.now" | head -n 20 || true
    cmp -s "$place/objects.before" "$place/objects.now" || differ=1
    diff "$place/rows.before" "$place/rows.now" || differ=1
    diff "$place/tree.before" "$place/tree.now" | head -n 20 || true
    cmp -s "$place/tree.before" "$place/tree.now" || differ=1
    [ $differ = 0 ] || stop "what was restored is not what was backed up"
    printf '\nproved: %s tables, %s rows, all checksums equal; %s paths, all bytes, modes, owners, times equal; %s objects equal [%s]\n' \
        "$(grep -cv '^sequence\|^index' "$place/rows.now")" \
        "$(awk '!/^(sequence|index)/ { n += $(NF - 1) } END { print n }' "$place/rows.now")" \
        "$(grep -c '^[df] ' "$place/tree.now")" "$(wc -l <"$place/objects.now")" "$(seconds_since "$start")"
}

title "Getting ready"
bash tests/install.sh demo || stop "something needed is missing"
start=$(now)
build "${RG_DEMO_PROFILE:-release}"
echo "tools built [$(seconds_since "$start")]"
start=$(now)
[ -z "${RG_DEMO_MAJOR:-}" ] || bash tests/majors.sh
make_place
start_cluster ${RG_DEMO_MAJOR:+major=$RG_DEMO_MAJOR}
start_s3 "$objects"
deploy
load
kit-uploads "$files" "$place/uploads"
database_digest >"$place/rows.before"
tree_digest >"$place/tree.before"
kit-s3 digest >"$place/objects.before"
vectors=$(psql -XAtd rgrid_production -c "SELECT coalesce((SELECT ', pgvector ' || extversion FROM pg_extension WHERE extname = 'vector'), '')")
echo "a private PostgreSQL $(psql -XAtc 'SHOW server_version')$vectors on port $PGPORT with $(psql -XAtc "SELECT pg_size_pretty(pg_database_size('rgrid_production'))")" \
    "of data; $files uploads, $(du -sh "$place/uploads" | cut -f1); a private S3 server with $objects objects [$(seconds_since "$start")]"
printf '\n%s$ cat rg.toml%s\n' "$bold" "$plain"
cat "$RG_CONFIG"

title "The bucket as it is declared"
expect 1 rg-bucket plan production
run rg-bucket apply production --yes
run rg-bucket plan production

title "Backing up, here and off-site"
run rg-backup run
run rg-backup list
run rg-backup verify --all

title "One bit of a stored backup flips: verify must not be content"
victim=$(ls "$place"/backups/production/database/production_*.age)
middle=$(($(stat -c %s "$victim") / 2))
byte=$(od -An -tu1 -j "$middle" -N 1 "$victim" | tr -d ' ')
write_byte() {
    printf "$(printf '\\%03o' "$1")" | dd of="$victim" bs=1 seek="$middle" conv=notrunc status=none
}
write_byte $((byte ^ 1))
expect 1 rg-backup verify --all
write_byte "$byte"
run rg-backup verify --all

title "The accident"
printf '\n%s$ psql rgrid_production -c "DROP TABLE executions, users CASCADE; TRUNCATE workers CASCADE"%s\n' "$bold" "$plain"
psql -Xq -d rgrid_production -c 'SET client_min_messages = warning' \
    -c 'DROP TABLE executions, users CASCADE; TRUNCATE workers CASCADE'
run rm -rf "$place/uploads"
kit-s3 lose
echo "every object of the bucket is deleted"

title "Restoring"
run rg-restore list
run rg-restore run production --identity "$place/backup.key" --yes
prove

title "Undo brings back what the restore replaced; then once more forward"
run rg-restore undo production/database --yes
if psql -XAtqc 'SELECT 1 FROM executions' rgrid_production >/dev/null 2>&1; then
    stop "undo did not bring back the database without its table executions"
fi
echo "the damaged database is back: it has no table executions"
run rg-restore run production/database --identity "$place/backup.key" --yes
prove

title "Proving a backup without touching what is live"
run rg-restore drill --identity "$place/backup.key"
run rg-backup list
run rg-backup prune --dry-run
prove

title "The machine is lost: an empty server, rg.toml, the env file, the age identity and the bucket's key are left"
stop_cluster
rm -rf "$place/uploads" "$place/backups" "$place/state"
kit-s3 lose
start=$(now)
old_port=$PGPORT
start_cluster ${RG_DEMO_MAJOR:+major=$RG_DEMO_MAJOR} unix_socket_directories=/tmp
# As distributions make it: whoever owns the server is its superuser by the socket.
owner=$(stat -c %U "$(psql -XAtc 'SHOW hba_file')")
psql -Xq -v ON_ERROR_STOP=1 \
    -c "COPY (VALUES ('owner $owner postgres')) TO '$(psql -XAtc 'SHOW ident_file')'" \
    -c "COPY (VALUES ('local all postgres peer map=owner'), ('host all all 127.0.0.1/32 scram-sha-256')) TO '$(psql -XAtc 'SHOW hba_file')'" \
    -c 'SELECT pg_reload_conf()' >/dev/null
sed -i "s/:$old_port\//:$PGPORT\//" "$place/.env.production"
echo "an empty PostgreSQL on port $PGPORT: roles $(psql -XAtc "SELECT string_agg(rolname, ', ') FROM pg_roles WHERE rolname !~ '^pg_'"), no database of ours [$(seconds_since "$start")]"
# Not all stores can be read, and it says so.
expect 2 rg-restore list
run rg-restore run globals production --identity "$place/backup.key" --yes
prove

title "Done: every command did what it promised"
