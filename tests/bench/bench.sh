#!/bin/bash
# `make bench`: ours beside the usual pipes, on the same data, in the same run. Prints medians
# and ratios; asserts nothing, for a busy machine is not a broken tool.
#
# RG_BENCH_MB     size of the dump in megabytes (300; 5000 for the proof of constant memory)
# RG_BENCH_FILES  number of uploads (5000)
# RG_BENCH_S3_MB  size of the object that goes to an S3 server and back (1000)
# RG_BENCH_LIST   number of backups that are listed from an S3 server (10000)
# RG_BENCH_ONLY   only these, such as 'floor ours_zstd'
# RG_BENCH_RUNS   runs of each; the order changes from round to round (3)
set -euo pipefail
name=bench
mb=${RG_BENCH_MB:-300}
files=${RG_BENCH_FILES:-5000}
runs=${RG_BENCH_RUNS:-3}
source "$(dirname "$0")/../demo/place.sh"

s3_mb=${RG_BENCH_S3_MB:-1000}
many=${RG_BENCH_LIST:-10000}
bash tests/install.sh s3 || stop "something needed is missing"
build "${RG_BENCH_PROFILE:-release}"
make_place
start_cluster
deploy
load
kit-uploads "$files" "$place/uploads"
psql -Xqd rgrid_production -c 'VACUUM ANALYZE'
configure gzip "$place/gzip.toml"
mkdir "$place/out" "$place/times"
export PGDATABASE=rgrid_production out=$place/out uploads=$place/uploads key=$place/backup.key
export gzip_toml=$place/gzip.toml

database() {
    floor()       { kit-measure sh -c 'pg_dump -Fc -Z0 >/dev/null'; }
    ours_zstd()   { without_pg kit-measure rg-backup -q run production/database; }
    pipe_zstd()   { kit-measure sh -c 'pg_dump -Fc -Z0 | zstd -q -1 -T2 >"$out/d.zst"'; }
    ours_gzip()   { without_pg kit-measure rg-backup -q --config "$gzip_toml" run production/database; }
    pipe_gzip()   { kit-measure sh -c 'pg_dump | gzip -6 >"$out/d.gz"'; }
}
tree() {
    ours_files()  { without_pg kit-measure rg-backup -q run production/files/uploads; }
    pipe_files()  { kit-measure sh -c 'tar cf - -C "$uploads" . | zstd -q -1 -T2 >"$out/u.zst"'; }
}
restoring() {
    ours_restore() { without_pg kit-measure rg-restore -q run production/database --beside bench_beside --identity "$key" --yes; }
    pipe_restore() { kit-measure pg_restore -j2 -d bench_plain "$out/plain.dump"; }
}
# One large object, to the same server and back, beside the peers that the registries have.
offsite() {
    ours_up()     { kit-measure kit-s3 put "$place/object"; }
    ours_down()   { kit-measure kit-s3 get "$place/back"; }
    aws_up()      { kit-measure aws --endpoint-url "$S3_ENDPOINT" s3 cp --quiet "$place/object" s3://acme-backups/aws/one; }
    aws_down()    { kit-measure aws --endpoint-url "$S3_ENDPOINT" s3 cp --quiet s3://acme-backups/aws/one "$place/back"; }
    rclone_up()   { kit-measure rclone copyto "$place/object" bench:acme-backups/rclone/one; }
    rclone_down() { kit-measure rclone copyto bench:acme-backups/rclone/one "$place/back"; }
}
# The catalog of a bucket with many backups.
catalog() {
    ours_list()   { without_pg kit-measure rg-backup -q --config "$place/many.toml" list; }
}
# Ten env files of a thousand variables, every other one a secret of its own.
linting() {
    ours_check()  { kit-measure rg-envgen check "$place/envs"; }
}
database; tree; restoring; offsite; catalog; linting
mkdir "$place/envs"
for file in {0..9}; do
    head -c 16000 /dev/urandom | od -An -tx1 -v -w32 | tr -d ' ' |
        awk -v file="$file" '{ printf "NAME_%d_SECRET=%s\nNAME_%d=value-%d-%d\n", NR, $0, NR, NR, file }' \
            >"$place/envs/.env.e$file"
done
chmod 600 "$place"/envs/.env.*

# What must lie ready before a run and be gone after it; not measured.
before() {
    case $1 in
        ours_zstd|ours_gzip|ours_files) rm -rf "$place/backups" "$place/state/stores" ;;
        pipe_restore)
            [ -e "$out/plain.dump" ] || pg_dump -Fc -Z0 >"$out/plain.dump"
            createdb bench_plain ;;
        ours_restore)
            rm -rf "$place/backups" "$place/state/stores"
            without_pg rg-backup -q run production/database >/dev/null ;;
    esac
    # Both sides find their input in the page cache: what is measured is the programs, not who came first.
    case $1 in
        rclone_up) # It would find that it is there already.
            rclone deletefile bench:acme-backups/rclone/one 2>/dev/null || true ;;
    esac
    case $1 in
        *_up) cat "$place/object" >/dev/null ;;
        *_files) tar cf - -C "$uploads" . | cat >/dev/null ;;
        pipe_restore) cat "$out/plain.dump" >/dev/null ;;
        ours_restore) find "$place/backups" -type f -exec cat {} + >/dev/null ;;
    esac
    # What the run before left to be written must not be waited for by the flushes of this one.
    sync
}
after() {
    case $1 in
        pipe_restore) dropdb bench_plain ;;
        ours_restore) dropdb bench_beside ;;
        *_down) rm -f "$place/back" ;;
    esac
    rm -f "$out"/*.zst "$out"/*.gz
}

S3_ENDPOINT='' start_s3 0
export S3_PLACE=$place/s3 RCLONE_CONFIG=$place/none.conf RCLONE_CONFIG_BENCH_TYPE=s3
export RCLONE_CONFIG_BENCH_PROVIDER=SeaweedFS RCLONE_CONFIG_BENCH_ENDPOINT=$S3_ENDPOINT
export RCLONE_CONFIG_BENCH_ACCESS_KEY_ID=$S3_KEY RCLONE_CONFIG_BENCH_SECRET_ACCESS_KEY=$S3_SECRET
servers=$(cd "${CARGO_TARGET_DIR:-target}" && pwd)/s3-servers
PATH=$PATH:$servers/bin:$servers/aws/bin
export AWS_ACCESS_KEY_ID=$S3_KEY AWS_SECRET_ACCESS_KEY=$S3_SECRET AWS_DEFAULT_REGION=us-east-1
mkdir "$S3_PLACE"
head -c "${s3_mb}M" /dev/urandom >"$place/object"

# As many backups in a bucket as one would have after years, each like a real one.
fill_catalog() {
    (umask 077; printf 'AWS_ACCESS_KEY_ID=%s\nAWS_SECRET_ACCESS_KEY=%s\n' "$S3_KEY" "$S3_SECRET" >"$place/many.env")
    cat >"$place/many.toml" <<TOML
state = "$place/state"
[stores.offsite]
url = "s3://acme-backups/many"
endpoint = "$S3_ENDPOINT"
credentials = "many.env"
[environments.production]
env_file = "$place/.env.production"
[environments.production.database]
url = "\$DATABASE_URL"
TOML
    without_pg rg-backup -q run production/database >/dev/null
    local manifests=("$place"/backups/production/database/*.manifest.json)
    kit-s3 many "$many" "${manifests[-1]}"
}

all=(floor ours_zstd pipe_zstd ours_gzip pipe_gzip ours_files pipe_files ours_restore pipe_restore ours_up rclone_up aws_up ours_down rclone_down aws_down ours_list ours_check)
[ -z "${RG_BENCH_ONLY:-}" ] || read -ra all <<<"$RG_BENCH_ONLY"
if [[ " ${all[*]} " == *' ours_list '* ]]; then fill_catalog; fi
for ((round = 0; round < runs; round++)); do
    for ((step = 0; step < ${#all[@]}; step++)); do
        what=${all[(step + round) % ${#all[@]}]}
        before "$what"
        if "$what" 2>"$place/said"; then
            tail -n 1 "$place/said" >>"$place/times/$what"
        else
            cat "$place/said" >&2
            printf 'bench: %s failed\n' "$what" >&2
            : >>"$place/times/failed_$what"
        fi
        after "$what"
        [ ! -t 2 ] || printf '\rround %d of %d: %-12s' $((round + 1)) "$runs" "$what" >&2
    done
done
[ ! -t 2 ] || printf '\r%40s\r' '' >&2

# median min max (seconds) and peak memory (MiB) of one kind
figures() {
    [ -e "$place/times/$1" ] || return 0
    sort -n "$place/times/$1" | awk '{ t[NR] = $1 / 1000; if ($2 > kib) kib = $2 }
        END { if (NR) { m = NR % 2 ? t[(NR + 1) / 2] : (t[NR / 2] + t[NR / 2 + 1]) / 2
              printf "%.2f %.2f %.2f %.0f", m, t[1], t[NR], kib / 1024 } }'
}
line() { # label kind [other: ratio ours/other] [target]
    local ours other
    ours=$(figures "$2")
    [ -n "$ours" ] || {
        [ -n "${RG_BENCH_ONLY:-}" ] || printf '%-46s failed\n' "$1"
        return
    }
    other=$(figures "${3:-none}")
    [ -z "${3:-}" ] || [ -n "$other" ] || return 0
    awk -v label="$1" -v ours="$ours" -v other="$other" -v target="${4:-}" -v turn="${5:-}" 'BEGIN {
        split(ours, o); split(other, p)
        printf "%-46s %8.2f  %6.2f–%-6.2f", label, o[1], o[2], o[3]
        if (target != "") {
            ratio = turn != "" ? p[1] / o[1] : o[1] / p[1]
            printf " %6s %5.2f  %-8s %5d", "", ratio, target, o[4]
        }
        print "" }'
}

printf '%s MB of dump, %s uploads (%s), %s runs of each, %s cores, PostgreSQL %s\n\n' "$mb" "$files" \
    "$(du -sh "$uploads" | cut -f1)" "$runs" "$(nproc)" "$(psql -XAtc 'SHOW server_version')"
printf '%-46s %8s  %-13s %12s  %-8s %5s\n' 'seconds' 'median' 'min–max' 'ratio' 'target' 'MiB'
line 'pg_dump -Fc -Z0 >/dev/null (the floor)' floor
line 'pg_dump -Fc -Z0 | zstd -1 -T2' pipe_zstd
line 'pg_dump | gzip -6' pipe_gzip
line 'rg-backup database, zstd + age   : floor' ours_zstd floor '<= 1.15'
line 'rg-backup database, zstd + age   : zstd pipe' ours_zstd pipe_zstd '-'
line 'rg-backup, times as fast as pg_dump | gzip' ours_zstd pipe_gzip '>= 3' turn
line 'rg-backup database, gzip + age   : gzip pipe' ours_gzip pipe_gzip '<= 1.1'
line 'tar | zstd -1 -T2' pipe_files
line 'rg-backup files                  : tar pipe' ours_files pipe_files '<= 1.1'
line 'pg_restore -j2 from a plain file' pipe_restore
line 'rg-restore --beside, compared    : pg_restore' ours_restore pipe_restore '<= 1.25'
line 'rclone copyto, up' rclone_up
line "ours, up ($s3_mb MB)               : rclone" ours_up rclone_up '<= 1'
line 'aws s3 cp, up' aws_up
line "ours, up ($s3_mb MB)               : aws" ours_up aws_up '<= 1'
line 'rclone copyto, down' rclone_down
line 'ours, down                       : rclone' ours_down rclone_down '<= 1'
line 'aws s3 cp, down' aws_down
line 'ours, down                       : aws' ours_down aws_down '<= 1'
line "rg-backup list of $many from S3" ours_list
line 'rg-envgen check, 10 x 1,000 secrets (<= 0.10)' ours_check
printf '\nMiB: peak resident memory of our process, without pg_dump and pg_restore.\n'
if compgen -G "$place/times/failed_*" >/dev/null; then exit 1; fi
