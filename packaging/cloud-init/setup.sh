#!/bin/bash
# Brings this server to a running {{ title }}, and may be run again at any time:
#   sudo rg-setup [PACKAGE.deb]
# Rendered by rg-envgen. It holds no secret.
set -Eeuo pipefail
export DEBIAN_FRONTEND=noninteractive PATH=$PATH:/usr/sbin:/sbin
cd /
trap 'echo "rg-setup: stopped at line $LINENO: mend it and run again: sudo rg-setup" >&2' ERR
left=
say() { echo "rg-setup: $*"; }
later() { left+="  - $*"$'\n'; }
add() { apt-get -qq -o DPkg::Lock::Timeout=300 install -y --no-install-recommends "$@" >/dev/null; }
ending() {
    if [ -z "$left" ]; then say "done"; else say "done, but for what only you can do:"; fi
    printf '%s' "$left"
    exit 0
}

say "ssh: keys only"
install -d -m 0755 /run/sshd
"$(command -v sshd)" -t
systemctl try-reload-or-restart ssh

say "the firewall: 22, 80 and 443"
{%- if docker %}
for rules in /etc/ufw/after.rules /etc/ufw/after6.rules; do
    grep -q '^# rg-setup:' "$rules" || cat /etc/rg/docker-user.rules >>"$rules"
done
{%- endif %}
ufw default deny incoming
ufw default allow outgoing
for port in 22/tcp 80/tcp 443/tcp{% if proxy == "caddy" %} 443/udp{% endif %}; do ufw allow "$port"; done
ufw --force enable
systemctl enable fail2ban unattended-upgrades
systemctl restart fail2ban unattended-upgrades

deb=${1:-}
{%- if package %}
if [ -z "$deb" ] && ! command -v rg-envgen >/dev/null; then
    say "the tools"
    deb=$(mktemp --suffix=.deb)
    curl -fsSL --proto '=https' --retry 5 --connect-timeout 20 --max-time 600 -o "$deb" {{ package.url | quoted }}
    echo "{{ package.sha256 }}  $deb" | sha256sum --check --quiet
    chmod 0644 "$deb"
fi
{%- endif %}
[ -z "$deb" ] || add "$(realpath "$deb")"
if ! command -v rg-envgen >/dev/null; then
    later "copy the tools' package here and run: sudo rg-setup ./PACKAGE.deb"
    ending
fi
{% if docker %}
say "docker compose"
docker compose version >/dev/null 2>&1 || add docker-compose-v2 || add docker-compose
docker compose version >/dev/null
{%- else %}
say "PostgreSQL {{ postgres }} with pgvector, from the PostgreSQL project's own archive"
if ! dpkg-query -W -f='${Status}' postgresql-{{ postgres }}-pgvector 2>/dev/null | grep -q 'ok installed'; then
    /usr/share/postgresql-common/pgdg/apt.postgresql.org.sh -y >/dev/null
    add postgresql-{{ postgres }} postgresql-{{ postgres }}-pgvector
fi
systemctl start postgresql
{%- endif %}

say "the environment: fresh secrets, made here"
{%- for directory in directories %}
install -d -o {{ app_user }} -g {{ app_user }} -m 0755 {{ directory }}
{%- endfor %}
rg-envgen init --profile {{ profile }}{% for set in sets %} --set {{ set | quoted }}{% endfor %}
{% if docker %}
say "the containers"
rg-envgen render compose -o {{ home }}
for env in {{ environments | join(" ") }}; do
    docker compose --env-file "{{ home }}/.env.$env.compose" -f "{{ home }}/compose.$env.yml" up -d --wait
done
rg-bucket apply --yes
{%- else %}
say "the database"
rg-envgen render database | runuser -u postgres -- psql -X -q -v ON_ERROR_STOP=1 >/dev/null
{%- endif %}

say "the units"
made=$(mktemp -d)
rg-envgen render systemd -o "$made"
install -m 0644 "$made"/*.service /etc/systemd/system/
{%- if not docker %}
install -m 0644 "$made"/*.logrotate /etc/logrotate.d/{{ profile }}
{%- endif %}
systemctl daemon-reload
for unit in "$made"/*.service; do
    unit=${unit##*/}
    if [ -x {{ program }} ]; then
        systemctl enable --now "$unit"
    else
        later "deploy the app ({{ program }} is not there), then: sudo systemctl enable --now $unit"
    fi
done
{% if proxy == "nginx" %}
say "nginx, and a certificate for each site"
rg-envgen render nginx -o "$made"
for site in "$made"/*.conf; do
    domain=$(sed -n 's/^ *server_name \([^ ;]*\);$/\1/p' "$site" | head -n 1)
    # nginx's own first site answers for it, from /var/www/html.
    if [ ! -e "/etc/letsencrypt/live/$domain/fullchain.pem" ] &&
        ! certbot certonly --non-interactive --agree-tos {{ certbot_mail }} --webroot -w /var/www/html \
            -d "$domain" --deploy-hook 'systemctl reload nginx'; then
        later "let the name $domain point to this server, then: sudo rg-setup"
        continue
    fi
    install -m 0644 "$site" /etc/nginx/conf.d/
done
nginx -t
systemctl reload-or-restart nginx
{%- else %}
say "caddy, which gets the certificates by itself"
install -d -m 0755 /etc/caddy/sites
rg-envgen render caddy -o /etc/caddy/sites
echo 'import /etc/caddy/sites/*' >/etc/caddy/Caddyfile
runuser -u caddy -- caddy validate --adapter caddyfile --config /etc/caddy/Caddyfile
systemctl reload-or-restart caddy
{%- endif %}

say "the backups and their timers"
[ -d /var/backups/rg ] || install -d -m 0700 /var/backups/rg
rg-backup schedule --install
rg-envgen check || later "see what is wrong with the environment: sudo rg-envgen check"
later "let backups leave this machine, and encrypt them: [stores.offsite] and [encryption] in /etc/rg/rg.toml"
rm -rf "$made"
ending
