//! A directory comes back exactly as it was, and no archive writes anywhere else.

use std::fs;
use std::os::unix::fs::MetadataExt;

use rg_tests::{Deployment, FullDisk, deployment};

const RUN: &[&str] = &["run", "production/files/uploads", "--yes"];

/// All that a tree can hold. `$1` is where.
const ODD_TREE: &str = r#"
set -e; cd "$1"
mkdir -p modes names links times empty/deeper "$(printf 'd%.0s' $(seq 200))"
for mode in 0 400 640 755 777 1644 2755 4755; do echo $mode >modes/$mode; chmod $mode modes/$mode; done
mkdir modes/closed modes/sticky; echo x >modes/closed/inside; chmod 500 modes/closed; chmod 1777 modes/sticky
cd names; for name in ' blank ' $'new\nline' '"quoted"' "it's" '-rf' 'back\slash' '*' $'tab\t' '讲义' $'\xff\xfe' '...' "$(printf 'n%.0s' $(seq 255))"; do
    echo "$name" >"./$name"; done; cd ..
echo one >links/a; ln links/a links/b; ln links/a names/c
ln -s a links/good; ln -s nowhere links/dangling; ln -s /etc/passwd links/absolute; ln -s ../.. links/up
truncate -s 40M sparse; printf end >>sparse; printf middle | dd of=sparse bs=1 seek=20000000 conv=notrunc status=none
touch -d '1971-02-03 04:05:06.789 UTC' times/old; touch -d '2040-01-01 UTC' times/future; touch times/zero-size
touch -h -d '2001-01-01 UTC' links/dangling
setfattr -n user.note -v 'a value' names/it\'s; setfattr -n user.dir -v x empty
setfacl -m u:1234:r names/-rf 2>/dev/null || setfacl -m u:1234:r ./names/-rf; setfacl -d -m g:4321:rx empty
if [ "$(id -u)" = 0 ]; then chown 12345:54321 modes/640 empty; chown -h 7:8 links/good; chmod 4755 modes/4755
else # what its owner may not read cannot be backed up; only root gives files setuid back
    find . -type f ! -readable -exec chmod u+r {} +; chmod u-s,g-s modes/2755 modes/4755; fi
touch -d '2020-02-02 UTC' empty modes .
"#;

#[test]
fn a_tree_with_everything_odd_comes_back_as_it_was() {
    let app = deployment!("odd");
    let uploads = app.uploads.clone();
    app.program("bash", ["-c", ODD_TREE, "odd"])
        .arg(&uploads)
        .run()
        .ok();
    let tree = app.tree(&uploads);
    assert!(
        tree.contains("user.note") && tree.contains("user:1234:r"),
        "{tree}"
    );
    let blocks = fs::metadata(uploads.join("sparse"))
        .expect("a file")
        .blocks();
    for compression in ["zstd", "gzip"] {
        app.configure("", &format!("compression = \"{compression}\""), "");
        app.backup_of("production/files/uploads");
        app.program(
            "bash",
            [
                "-c",
                "chmod 700 modes/closed; rm -rf modes/closed; echo other >names/it\\'s; chmod 600 modes/755; touch new",
            ],
        )
        .current_dir(&uploads)
        .run()
        .ok();
        app.restore(RUN).ok();
        app.tree_is(&uploads, &tree);
        let now = fs::metadata(uploads.join("sparse"))
            .expect("a file")
            .blocks();
        assert!(
            now <= blocks + 64,
            "no longer sparse: {now} blocks instead of {blocks}"
        );
        assert_eq!(app.left_over(), [""; 0]);
    }
    // What was replaced can be removed again, closed directories and all.
    app.restore(RUN).ok();
    assert_eq!(app.kept().len(), 1);
    // And all of it is gone.
    app.program(
        "sh",
        ["-c", "chmod -R u+rwX \"$1\"; rm -rf \"$1\"", "accident"],
    )
    .arg(&uploads)
    .run()
    .ok();
    assert!(!uploads.exists(), "the accident");
    app.restore(RUN).ok();
    app.tree_is(&uploads, &tree);
    // The test's own place must be removable.
    app.program("chmod", ["-R", "u+rwX", "srv"]).run().ok();
}

#[test]
fn the_configured_owner_gets_everything_or_it_is_said_that_only_root_can() {
    let app = deployment!("owner");
    app.backup_of("production/files/uploads");
    app.change("since");
    let before = app.held();
    app.configure("", "owner = \"nobody-of-that-name:daemon\"", "");
    app.restore(RUN)
        .fails(2)
        .says("no `nobody-of-that-name` in /etc/passwd");
    app.is_as(&before);
    app.configure("", "owner = \"2345:6789\"", "");
    if rustix::process::geteuid().is_root() {
        app.restore(RUN).ok();
        let others = app
            .program(
                "find",
                [
                    "srv/uploads",
                    "!",
                    "-user",
                    "2345",
                    "-o",
                    "!",
                    "-group",
                    "6789",
                ],
            )
            .run()
            .ok();
        assert_eq!(others.out(), "");
        // The same as an ordinary user.
        let words = [
            "-c",
            "cp \"$1\" own-driver && chmod 755 own-driver && chown -R 65534:65534 .",
        ];
        app.program("sh", words)
            .arg("x")
            .arg(app.driver())
            .run()
            .ok();
        let driver = app.path("own-driver").to_string_lossy().into_owned();
        let user = [
            "--reuid=65534",
            "--regid=65534",
            "--clear-groups",
            &driver,
            "rg-restore",
        ];
        let output = app.program("setpriv", [&user[..], RUN].concat()).run();
        output
            .fails(2)
            .says("only root can give files to 2345:6789");
    } else {
        app.restore(RUN)
            .fails(2)
            .says("only root can give files to 2345:6789");
        app.is_as(&before);
    }
}

/// Archives as an attacker would leave them, each with a word of the reason.
const HOSTILE: &str = r#"
set -e; mkdir hostile; cd hostile; mkdir t; cd t
pack() { gzip -c "../$1.tar" >"../$1.tar.gz"; }
echo evil >evil
tar -cPf ../absolute.tar --transform "s,^evil,$1/outside/evil," evil; pack absolute
tar -cPf ../climbing.tar --transform 's,^evil,../../outside/evil,' evil; pack climbing
ln -s "$1/outside" link; tar -cf ../through.tar link; rm link; mkdir link; echo evil >link/evil; tar -rf ../through.tar link/evil; pack through
tar -cf ../device.tar -C /dev null; pack device
echo a >first; ln first second; tar -cPf ../hardlink.tar --transform "flags=h;s,^first,$1/outside/target," first second; pack hardlink
tar -cf ../twice.tar evil; tar -rf ../twice.tar evil; pack twice
tar -cf ../cut.tar -C "$1/srv" uploads; head -c 20000 ../cut.tar >../c && mv ../c ../cut.tar; pack cut
truncate -s 300M zeros; cat zeros >full; rm zeros; tar -cf ../bomb.tar full; pack bomb; rm ../bomb.tar full
printf 'no archive at all' | gzip >../words.tar.gz; printf '' | gzip >../empty.tar.gz; printf 'no gzip' >../plain.tar.gz
"#;

#[test]
fn a_hostile_archive_is_refused_with_its_reason_and_nothing_is_written_outside() {
    let app = deployment!("hostile");
    let root = app.root().to_path_buf();
    app.write("outside/target", "untouched");
    app.program("bash", ["-c", HOSTILE, "hostile"])
        .arg(&root)
        .run()
        .ok();
    // The state lies on a small disk: what an archive may hold is bounded by what fits there.
    let disk = FullDisk::mount(&app, "small", 16);
    let state = disk.path().join("state").display().to_string();
    app.config(&format!(
        "state = \"{state}\"\n[stores.local]\nurl = \"file://{{root}}/store\"\n\
         [environments.production.files.uploads]\npath = \"srv/uploads\"\n"
    ));
    let (before, outside) = (app.held(), app.tree(&app.path("outside")));
    for (archive, reason) in [
        ("absolute", "absolute"),
        ("climbing", ".."),
        ("through", "link"),
        ("device", "device"),
        ("hardlink", "target"),
        ("twice", "evil"),
        ("cut", ""),
        ("bomb", ""),
        ("words", ""),
        ("empty", ""),
        ("plain", ""),
    ] {
        let file = format!("hostile/{archive}.tar.gz");
        let output = app.restore(&[RUN, &["--from", &file]].concat()).fails(2);
        let output = output.says(&file).says(reason);
        assert!(output.err().lines().count() < 6, "{output:?}");
        app.is_as(&before);
        app.tree_is(&app.path("outside"), &outside);
        let left = fs::read_dir(disk.path().join("state/tmp"))
            .expect("the scratch")
            .count();
        assert_eq!(left, 0, "{archive}");
    }
}

#[test]
fn an_archive_of_the_old_scripts_is_restored() {
    let app = deployment!("old_tar");
    let held = app.held();
    app.program(
        "tar",
        [
            "-czf",
            "old.tar.gz",
            "--format=posix",
            "-C",
            "srv/uploads",
            ".",
        ],
    )
    .run()
    .ok();
    app.change("since");
    app.restore(&[RUN, &["--from", "old.tar.gz"]].concat()).ok();
    app.tree_is(&app.uploads, &held.tree);
    app.restore(&["undo", "production/files/uploads", "--yes"])
        .ok();
    assert_eq!(
        fs::read_to_string(app.uploads.join("mark")).expect("the mark"),
        "since"
    );
}

#[test]
fn a_mount_point_or_a_symbolic_link_is_said_to_be_one_before_anything_is_restored() {
    let app = deployment!("mounted");
    let app: &Deployment<'_> = &app;
    app.backup_of("production/files/uploads");
    let real = app.path("srv/real");
    fs::rename(&app.uploads, &real).expect("a rename");
    std::os::unix::fs::symlink("real", &app.uploads).expect("a link");
    app.restore(RUN)
        .fails(2)
        .says("is a symbolic link")
        .says("configure the path");
    fs::remove_file(&app.uploads).expect("the link");
    fs::write(&app.uploads, "a file").expect("a file");
    app.restore(RUN).fails(2).says("is not a directory");
    fs::remove_file(&app.uploads).expect("the file");
    let disk = FullDisk::mount(app, "srv/uploads", 4);
    app.config(&format!(
        "[stores.local]\nurl = \"file://{{root}}/store\"\n\
         [environments.production.files.uploads]\npath = \"{}\"\n",
        disk.path().display()
    ));
    fs::write(disk.path().join("live"), "live").expect("a file");
    app.restore(RUN)
        .fails(2)
        .says("is a mount point")
        .says("--beside");
    assert_eq!(
        fs::read_to_string(disk.path().join("live")).expect("a file"),
        "live"
    );
    assert_eq!(app.left_over(), [""; 0]);
}
