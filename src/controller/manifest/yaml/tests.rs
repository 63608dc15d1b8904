//! Tests of reading YAML: kubectl and serde_yaml read the same values, and texts that expand are limited.

use serde_json::json;

use super::*;

fn read(text: &str) -> Result<Vec<Value>, String> {
    Documents::new(text).collect::<Result<_, _>>().map_err(|error| {
        format!("{:?} {}", error.position.map(|at| (at.line, at.column)).unwrap_or_default(), error.message)
    })
}

fn one(text: &str) -> Value {
    read(text).unwrap().remove(0)
}

fn refused(text: &str) -> String {
    read(text).unwrap_err()
}

#[test]
fn reads_scalars_by_the_core_schema() {
    let text = "[a, 'b', \"c\\n\", 1, -2, +3, 0x10, 0o17, 0b11, 0143, 1.5, 1e3, .5, 18446744073709551615, true, False, \
                null, ~, yes, Off, 12a, .inf, 1.2.3, '1', !!str 1, !!int '7', !!float '1', ! 1, 2026-01-01]";
    let read = json!([
        "a",
        "b",
        "c\n",
        1,
        -2,
        3,
        16,
        15,
        3,
        "0143",
        1.5,
        1000.0,
        0.5,
        18_446_744_073_709_551_615_u64,
        true,
        false,
        null,
        null,
        "yes",
        "Off",
        "12a",
        ".inf",
        "1.2.3",
        "1",
        "1",
        7,
        1,
        "1",
        "2026-01-01"
    ]);
    assert_eq!(one(text), read);
}

#[test]
fn reads_what_serde_yaml_reads() {
    for text in [
        include_str!("../../validate/example.yaml"),
        include_str!("../../../../crds/mailservers.mailgress.dev.yaml"),
        "a: &x {b: 1, c: 2}\nd: {<<: *x, c: 3}\ne: {<<: [{f: 1}, {f: 2, g: 3}]}\n",
        "a: |\n  one\n  two\nb: >-\n  three\n  four\nc:\n- 1\n-\n  - 2\n? d\n: e\n1: f\ntrue: g\n",
        "{\n\t\"a\": [1, \"x\\/y\\u00e4\"],\n\t\"b\": {}\n}\n",
        "a: b\r\nc:\r\n- d\r\n",
    ] {
        let mut expected: serde_yaml::Value = serde_yaml::Deserializer::from_str(text)
            .next()
            .map(|d| serde::Deserialize::deserialize(d).unwrap())
            .unwrap();
        expected.apply_merge().unwrap();
        assert_eq!(one(text), serde_json::to_value(expected).unwrap(), "{text}");
    }
    assert_eq!(read("---\na\n---\n---\nb\n...\n").unwrap(), [json!("a"), json!(null), json!("b")]);
    assert_eq!(one("\u{feff}a: b\n"), json!({ "a": "b" }));
    assert_eq!(read("").unwrap(), Vec::<Value>::new());
    assert_eq!(read("# nothing\n").unwrap(), Vec::<Value>::new());
}

#[test]
fn says_where_a_text_is_broken() {
    assert_eq!(refused("a: 1\na: 2\n"), "(2, 1) duplicate key \"a\"; remove one of them");
    assert!(refused("a: {<<: {b: 1}, <<: {c: 1}}\n").contains("duplicate key"));
    assert!(refused("a: {<<: 1}\n").contains("<< takes a map"));
    assert!(refused("{[a]: b}\n").contains("the key of a map must be text"));
    assert!(refused("a: !mine b\n").contains("the tag !mine has no meaning here"));
    assert!(refused("a: !!int b\n").contains("tagged !!int, but is not of that type"));
    assert!(refused("a: &b [*b]\n").contains("this alias refers to a value that contains it"));
    assert!(refused("a: *b\n").starts_with("(1, 4) "));
    assert!(refused("a: &x 1\n---\nb: *x\n").starts_with("(3, 4) "));
    assert!(refused("a: [1\n").starts_with("(2, 1) "));
    assert!(refused("a: b\0c\n").contains("unprintable"));
}

/// Returns `levels` maps, of which each merges ten copies of the previous one.
fn merge_bomb(levels: usize) -> String {
    let fields: String = (0..40).map(|n| format!("k{n}: v, ")).collect();
    let mut text = format!("a0: &a0 {{{fields}}}\n");
    for level in 1..levels {
        let nested: String = (0..10).map(|n| format!("n{n}: *a{}, ", level - 1)).collect();
        text += &format!("a{level}: &a{level} {{<<: *a{}, {nested}}}\n", level - 1);
    }
    text
}

#[test]
fn merge_keys_that_grow_are_refused_before_they_are_built() {
    let text = merge_bomb(200);
    assert!(text.len() < 48_000, "{}", text.len());
    let found = refused(&text);
    assert!(found.contains("expand to more than 20000 values") && found.starts_with("(3, "), "{found}");
}

#[test]
fn aliases_that_grow_are_refused_before_they_are_built() {
    let wide = format!("a: &a [{}]\nb: [{}]\n", "x,".repeat(10_000), "*a,".repeat(100_000));
    assert!(refused(&wide).contains("expand to more than 20000 values"), "{}", refused(&wide));
    let long = format!("a: &a {}\nb: [{}]\n", "x".repeat(1 << 20), "*a,".repeat(100_000));
    assert!(refused(&long).contains("more than 3145728 bytes of text"), "{}", refused(&long));
    // Each level contains the previous one again.
    let nested = format!("{}{}{}", "&a [".repeat(60), "x,".repeat(5_000), "]".repeat(60)).replace("&a", "&b");
    assert!(refused(&nested).contains("expand to more than 20000 values"));
    // Normal texts are far below the limit.
    let listeners: String = (0..64).map(|n| format!("- {{<<: *base, name: l{n}}}\n")).collect();
    let settings: String = (0..100).map(|n| format!("s{n}: v, ")).collect();
    assert_eq!(
        one(&format!("base: &base {{{settings}}}\nlisteners:\n{listeners}"))["listeners"][63]["s99"],
        "v"
    );
}

#[test]
fn depth_is_bounded() {
    for text in ["{a: ", "[", "- ", "? ", "- - - ", "[{a: "].map(|unit| unit.repeat(200_000 / unit.len())) {
        let found = refused(&text);
        assert!(found.contains("nested more than 64 deep"), "{found}: {:.20}", text);
    }
    let nested = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
    assert!(read(&nested(64)).is_ok());
    assert_eq!(refused(&nested(65)), "(1, 65) values are nested more than 64 deep; nest it less deeply");
    let staircase: String = (0..100).map(|n| format!("{}a:\n", " ".repeat(n))).collect();
    assert!(refused(&staircase).starts_with("(65, "));
}

#[test]
fn values_and_text_are_bounded() {
    let found = refused(&"- a\n".repeat(300_000));
    assert_eq!(found, "(200000, 3) more than 200000 values, with aliases expanded; split the file");
    assert!(refused(&"--- a\n".repeat(300_000)).contains("more than 200000 values"));
    let found = refused(&format!("a:\n[{}]", "a,".repeat(300_000)));
    assert!(
        found.starts_with("(2, 400001) the file has more than 200000 commas and opening brackets"),
        "{found}"
    );
    let found = refused(&" ".repeat(MAX_TEXT + 1));
    assert!(found.contains("3145729 bytes is more than the 3145728 (3 MiB)"), "{found}");
}
