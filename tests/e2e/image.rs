//! The image built without Docker: the same bytes each time, with the configuration of the Dockerfile.

use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use crate::images::{ARCHITECTURE, archiver, root, rootfs};
use crate::node::succeed;

#[test]
fn the_image_is_the_same_byte_for_byte_each_time() {
    let directory = tempfile::tempdir().unwrap();
    let build = |name: &str| {
        // Copy the files again, with the same binary.
        let (files, archive) = (directory.path().join(name), directory.path().join(format!("{name}.tar")));
        succeed(Command::new("cp").arg("-r").arg(rootfs()).arg(&files));
        succeed(archive_of(&files, &archive).env("SOURCE_DATE_EPOCH", "1767225600"));
        std::fs::read(archive).unwrap()
    };
    assert!(build("one") == build("two"), "two archives of the same files differ");
}

#[test]
fn the_image_is_what_the_dockerfile_says() {
    let directory = tempfile::tempdir().unwrap();
    let archive = directory.path().join("image.tar");
    succeed(&mut archive_of(rootfs(), &archive));
    succeed(Command::new("tar").arg("-C").arg(directory.path()).arg("-xf").arg(&archive));
    let read = |name: &str| -> Value {
        serde_json::from_slice(&std::fs::read(directory.path().join(name)).unwrap()).unwrap()
    };
    let blob = |descriptor: &Value| {
        format!("blobs/sha256/{}", descriptor["digest"].as_str().unwrap().strip_prefix("sha256:").unwrap())
    };
    let index = read("index.json");
    assert_eq!(
        index["manifests"][0]["annotations"]["io.containerd.image.name"],
        "docker.io/test/mailgress:7"
    );
    let manifest = read(&blob(&index["manifests"][0]));
    let image = read(&blob(&manifest["config"]));
    assert_eq!(image["architecture"], ARCHITECTURE);
    assert_eq!(image["config"], dockerfiles_config());

    // For tools that read Docker's own format.
    let docker = read("manifest.json");
    assert_eq!(docker[0]["RepoTags"], json!(["docker.io/test/mailgress:7"]));
    assert_eq!(docker[0]["Config"], blob(&manifest["config"]));
    assert_eq!(docker[0]["Layers"], json!([blob(&manifest["layers"][0])]));

    let layer = directory.path().join(blob(&manifest["layers"][0]));
    let listed = succeed(Command::new("tar").args(["--numeric-owner", "-tvzf"]).arg(layer));
    let listed = String::from_utf8(listed.stdout).unwrap();
    let files: Vec<(&str, &str, &str)> = listed
        .lines()
        .filter_map(|line| {
            let words: Vec<&str> = line.split_whitespace().collect();
            let file = words[0].starts_with('-');
            file.then(|| (words[0], words[1], words[5]))
        })
        .collect();
    assert_eq!(
        files,
        [
            ("-rw-r--r--", "0/0", "etc/group"),
            ("-rw-r--r--", "0/0", "etc/passwd"),
            ("-rw-r--r--", "0/0", "etc/ssl/certs/ca-certificates.crt"),
            ("-rwxr-xr-x", "0/0", "mailgress"),
        ]
    );
}

#[test]
fn the_binary_needs_nothing_beside_it_and_does_not_say_where_it_was_built() {
    let binary = rootfs().join("mailgress");
    let kind = succeed(Command::new("readelf").args(["--program-headers", "--dynamic"]).arg(&binary));
    let kind = String::from_utf8(kind.stdout).unwrap();
    assert!(!kind.contains("INTERP") && !kind.contains("NEEDED"), "{kind}");
    let bytes = std::fs::read(&binary).unwrap();
    let home = std::env::var("HOME").unwrap();
    for place in [root().display().to_string(), format!("{home}/.cargo"), format!("{home}/.rustup")] {
        let found = bytes.windows(place.len()).position(|window| window == place.as_bytes());
        assert_eq!(found, None, "{place} is in the binary");
    }
    // In an empty root, as the user nobody.
    let directory = rootfs().display().to_string();
    let mut command = Command::new("unshare");
    command.args(["--user", "--map-root-user", "--root", &directory, "/mailgress", "--version"]);
    let output = command.output().unwrap();
    let text =
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(text.starts_with("mailgress ") || text.contains("unshare failed"), "{text}");
}

#[test]
fn the_binary_names_its_dependencies_for_scanners() {
    let directory = tempfile::tempdir().unwrap();
    let section = directory.path().join("section");
    let dump = format!("--dump-section=.dep-v0={}", section.display());
    let copy = directory.path().join("copy");
    succeed(Command::new("objcopy").arg(dump).arg(rootfs().join("mailgress")).arg(copy));
    let inflate =
        "import sys, zlib; sys.stdout.buffer.write(zlib.decompress(open(sys.argv[1], 'rb').read()))";
    let text = succeed(Command::new("python3").args(["-c", inflate]).arg(section)).stdout;
    let packages: Value = serde_json::from_slice(&text).unwrap();
    let packages = packages["packages"].as_array().unwrap();
    let lock = std::fs::read_to_string(root().join("Cargo.lock")).unwrap();
    for name in ["mailgress", "tokio", "rustls", "kube", "aws-lc-rs"] {
        let found = packages.iter().find(|package| package["name"] == name && package["kind"].is_null());
        let found = found.unwrap_or_else(|| panic!("no {name} in {packages:?}"));
        let locked = format!("name = \"{name}\"\nversion = {}\n", found["version"]);
        assert!(lock.contains(&locked), "{locked}");
    }
}

#[test]
fn an_image_with_a_label_that_has_no_value_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let (files, archive) = (directory.path().join("files"), directory.path().join("image.tar"));
    std::fs::create_dir(&files).unwrap();
    std::fs::write(files.join("file"), "").unwrap();
    let mut command = archiver(&files, &root().join("Dockerfile"), "docker.io/test/mailgress:7", &archive);
    let output = command.arg("VERSION=7").output().unwrap();
    assert!(!output.status.success());
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("without a value") && said.contains("$REVISION"), "{said}");
    assert!(!archive.exists());
}

/// Returns the command as `make image` runs it.
fn archive_of(files: &Path, archive: &Path) -> Command {
    let mut command = archiver(files, &root().join("Dockerfile"), "docker.io/test/mailgress:7", archive);
    command.args(["VERSION=7", "REVISION=0123abc"]);
    command
}

/// Returns the configuration that Docker would create from the Dockerfile's last stage.
fn dockerfiles_config() -> Value {
    let text = std::fs::read_to_string(root().join("Dockerfile")).unwrap();
    let (_, stage) = text.rsplit_once("\nFROM scratch\n").unwrap();
    let mut config = json!({ "Labels": {}, "ExposedPorts": {} });
    for line in stage.lines() {
        let (instruction, rest) = line.split_once(' ').unwrap();
        match instruction {
            "USER" => config["User"] = json!(rest),
            "ENTRYPOINT" => config["Entrypoint"] = serde_json::from_str(rest).unwrap(),
            "CMD" => config["Cmd"] = serde_json::from_str(rest).unwrap(),
            "EXPOSE" => config["ExposedPorts"][rest] = json!({}),
            "LABEL" => {
                let (name, value) = rest.split_once('=').unwrap();
                let value = value.trim_matches('"').replace("$VERSION", "7").replace("$REVISION", "0123abc");
                config["Labels"][name] = json!(value);
            }
            "ARG" => {}
            "COPY" => assert_eq!(rest, "--from=build /rootfs /", "what make image does not do"),
            other => panic!("{other}: make image does not know it"),
        }
    }
    config
}
