"""Bad input of the roles by which people log in: who would be locked out."""

from __future__ import annotations

from tests.bad_input_examples import BY_ANNA, BY_ROOT, PERSON, SECRET, SHORT_KEY, Case

ACCESS = [
    Case(
        "ssh",
        "run by root",
        {"ansible_connection": "ssh"},
        ("ansible_user", '"root"', "playbooks/bootstrap.yml"),
        BY_ROOT,
    ),
    Case(
        "ssh",
        "run by password",
        {"ansible_connection": "ssh", "ansible_password": SECRET},
        ("ansible_password", "********", "as bootstrap_password"),
        BY_ANNA,
    ),
    Case("ssh", "no group", {"ssh_allow_groups": []}, ("ssh_allow_groups", "[]", "at least one group")),
    Case(
        "ssh", "setting of the role", {"ssh_extra_settings": {"permitRootLogin": True}}, ("ssh_extra_settings", "permitrootlogin", "itself")
    ),
    Case("ssh", "match in a setting", {"ssh_extra_settings": {"Match": "all"}}, ("ssh_extra_settings", '["Match"]', "neither Match nor")),
    Case("ssh", "two lines in a setting", {"ssh_extra_settings": {"AcceptEnv": "A\nMatch all"}}, ("ssh_extra_settings", "in one line")),
    Case("ssh", "port", {"ssh_port": 70000}, ("ssh_port", "70000", "1 to 65535")),
    Case(
        "administrators",
        "the own user gone",
        {"ansible_connection": "ssh", "administrators_people": [{"name": "anna", "state": "absent"}]},
        ("administrators_people", "anna", "the user of this connection"),
        BY_ANNA,
    ),
    Case(
        "administrators",
        "the own user without sudo",
        {"ansible_connection": "ssh", "administrators_people": [{**PERSON, "sudo": False}]},
        ("administrators_people", "anna", "sudo for the user of this connection"),
        BY_ANNA,
    ),
    Case(
        "administrators",
        "sudo by a password that the run does not know",
        {"ansible_connection": "ssh", "administrators_people": [{**PERSON, "password_hash": "$6$salt$" + 86 * "x", "sudo_password": True}]},
        ("administrators_people", "anna", "ansible_become_password"),
        BY_ANNA,
    ),
    Case(
        "administrators",
        "no key",
        {"administrators_people": [{"name": "anna"}]},
        ("administrators_people[0].keys", "[]", "at least one public key"),
    ),
    Case(
        "administrators",
        "key cut off",
        {"administrators_people": [{"name": "anna", "keys": [PERSON["keys"][0][:40]]}]},
        ("administrators_people[0].keys", "ssh-ed25519", "cut off or mistyped"),
    ),
    Case(
        "administrators",
        "short RSA key",
        {"administrators_people": [{"name": "anna", "keys": [SHORT_KEY]}]},
        ("administrators_people[0].keys", "ssh-rsa", "at least 3072 bits, not 2048"),
    ),
    Case(
        "administrators",
        "private key",
        {"administrators_people": [{"name": "anna", "keys": ["-----BEGIN OPENSSH PRIVATE KEY-----\n" + SECRET]}]},
        ("administrators_people[0].keys", "(a private key)", "the public key"),
    ),
    Case(
        "administrators",
        "password in the clear",
        {"administrators_people": [{**PERSON, "password_hash": SECRET}]},
        ("administrators_people[0].password_hash", "********", "openssl passwd -6"),
    ),
    Case(
        "administrators",
        "password without a hash",
        {"administrators_people": [{**PERSON, "sudo_password": True}]},
        ("administrators_people[0].sudo_password", "true", "beside a password_hash"),
    ),
    Case("bootstrap", "root for good", {"ansible_user": "root"}, ("ansible_user", "root", "one of administrators_people")),
    Case("bootstrap", "password for good", {"ansible_password": SECRET}, ("ansible_password", "********", "is bootstrap_password")),
    Case(
        "bootstrap",
        "no fingerprint",
        {"bootstrap_host_key_fingerprints": ["aa:bb"]},
        ("bootstrap_host_key_fingerprints", '["aa:bb"]', "SHA256 and 43 characters"),
    ),
    Case("fail2ban", "wrong type", {"fail2ban_extra_jails": ["sshd"]}, ("fail2ban_extra_jails", '["sshd"]', "a dictionary")),
    Case("fail2ban", "unknown jail", {"fail2ban_jails": ["ssh"]}, ("fail2ban_jails", '"ssh"', '"sshd"')),
    Case("fail2ban", "no settings", {"fail2ban_extra_jails": {"shop": None}}, ("fail2ban_extra_jails", "settings for each jail")),
    Case("fail2ban", "everybody ignored", {"fail2ban_ignore": ["0.0.0.0/0"]}, ("fail2ban_ignore", "0.0.0.0/0", "smaller than")),
    Case(
        "fail2ban",
        "no address",
        {"fail2ban_ignore": ["10.0.0.1 10.0.0.2"]},
        ("fail2ban_ignore", "10.0.0.1 10.0.0.2", "addresses, networks"),
    ),
    Case("fail2ban", "forgetful", {"fail2ban_remember_seconds": 3600}, ("fail2ban_remember_seconds", "3600", "fail2ban_ban_max_seconds")),
    Case("fail2ban", "no ports", {"fail2ban_web_ports": []}, ("fail2ban_web_ports", "one or more ports")),
    Case("antivirus", "the whole host", {"antivirus_folders": ["/"]}, ("antivirus_folders", '["/"]', "at least two parts")),
    Case(
        "antivirus",
        "no signatures",
        {"antivirus_folders": ["/srv/shop/uploads"], "antivirus_official_signatures": False},
        ("antivirus_signature_urls", "the scanner would know nothing"),
    ),
    Case(
        "antivirus",
        "unknown signatures",
        {"antivirus_signature_urls": ["https://signatures.example.com/own.txt"]},
        ("antivirus_signature_urls", "own.txt", "by their ending"),
    ),
    Case("antivirus", "restless", {"antivirus_interval_seconds": 1}, ("antivirus_interval_seconds", "5 to 86400 seconds")),
]
