//! The appearance of the page: with and without JavaScript, narrow and wide, light and dark.

use serde_json::Value;

use crate::browser::{Browser, Screen};
use crate::edge::{Edge, connect};
use crate::support::mailgress::Mailgress;
use crate::support::{talk, wait};

const WIDE: Screen = Screen { width: 1280, scheme: "light" };
const SCREENS: [(&str, Screen); 4] = [
    ("wide-light", WIDE),
    ("wide-dark", Screen { width: 1280, scheme: "dark" }),
    ("phone-light", Screen { width: 375, scheme: "light" }),
    ("phone-dark", Screen { width: 375, scheme: "dark" }),
];

/// Starts it and waits until the page shows everything.
fn start() -> Edge {
    let edge = Edge::start();
    wait::eventually("everything is on the page", || {
        let page = edge.mailgress.page("/");
        let told = ["All fail", "CertificateExpired", "BindFailed", "Auth service", "3 open"];
        told.iter().all(|text| page.contains(text)).then_some(())
    });
    edge
}

fn url(mailgress: &Mailgress) -> String {
    format!("http://{}/", mailgress.admin())
}

#[tokio::test]
async fn the_page_is_read_on_every_screen_in_light_and_dark() {
    let edge = start();
    let Some(browser) = Browser::start().await else { return };
    for (name, screen) in SCREENS {
        browser.open(&url(&edge.mailgress), screen, true).await;
        browser.shoot(name).await;
        let too_wide = browser.run("return document.documentElement.scrollWidth - innerWidth").await;
        assert_eq!(too_wide, 0, "{name}: it is scrolled sideways");
        let faint = browser.run(CONTRAST).await;
        assert_eq!(faint, Value::Array(Vec::new()), "{name}: too little contrast");
        let wrong = browser.run(STRUCTURE).await;
        assert_eq!(wrong, Value::Array(Vec::new()), "{name}");
    }
    if let Some(axe) = axe() {
        browser.run(&axe).await;
        let broken = browser.run_async(AXE).await;
        assert_eq!(broken, Value::Array(Vec::new()), "axe-core");
    }
    browser.close().await;
}

#[tokio::test]
async fn it_says_the_same_without_javascript_and_can_be_searched() {
    let edge = start();
    let Some(browser) = Browser::start().await else { return };
    browser.open(&url(&edge.mailgress), WIDE, false).await;
    let text = browser.text().await;
    for part in
        ["mail/edge", "BindFailed", "127.0.0.1", "mailgress-0", ">Reload</a>", "Failed sessions", "bound"]
    {
        assert!(text.contains(part), "{part} is missing in {text}");
    }
    assert!(!text.contains(">Pause</button>"), "the button is the script's");
    browser.open(&format!("{}?q=pop3s", url(&edge.mailgress)), WIDE, false).await;
    let found = browser.text().await;
    assert!(found.contains("1 of 1 found among 10") && !found.contains("BindFailed</b>"), "{found}");
    browser.close().await;
}

#[tokio::test]
async fn it_renews_itself_in_its_place_until_it_is_paused() {
    let mut edge = start();
    let Some(browser) = Browser::start().await else { return };
    browser.open(&url(&edge.mailgress), Screen { width: 375, scheme: "light" }, true).await;
    browser
        .run(
            "window.same = document.querySelector('#listeners tbody tr');
             document.querySelector('input[type=search]').value = 'half typ';
             document.querySelector('input[type=search]').focus({ preventScroll: true });
             scrollTo({ top: 700, behavior: 'instant' });",
        )
        .await;
    let mut wire = connect(edge.imap);
    talk::log_in(&mut wire, "IMAP", "planted-login", "planted-password").unwrap();
    edge.open.push(wire);
    let shows = |open: usize| {
        format!("return document.getElementById('listeners').innerText.includes('{open} open of')")
    };
    browser.eventually("the fourth session is shown", &shows(4)).await;
    let kept = "return scrollY === 700 && document.activeElement.value === 'half typ'
                && same.isConnected && document.querySelector('#listeners tbody tr') === same";
    assert_eq!(browser.run(kept).await, true, "place, focus and rows are kept");
    browser.run("document.querySelector('#live button').click()").await;
    edge.open.pop();
    wait::eventually("the page itself goes on", || {
        edge.mailgress.page("/").contains("3 open of").then_some(())
    });
    assert_eq!(browser.run(&shows(4)).await, true, "it is paused");
    browser.run("document.querySelector('#live button').click()").await;
    browser.eventually("it goes on", &shows(3)).await;
    drop(edge);
    let lost = "return document.getElementById('live').innerText.includes('No answer since')";
    browser.eventually("it says that nobody answers", lost).await;
    browser.close().await;
}

/// Finds texts with less contrast to their background than WCAG 2.2 AA requires.
const CONTRAST: &str = r"
    const parse = (c) => { const [r, g, b, a = 1] = c.match(/[\d.]+/g).map(Number); return { r, g, b, a }; };
    const light = ({ r, g, b }) => [r, g, b].map((v) => v / 255)
        .map((v) => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
        .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
    const behind = (e) => { for (; e; e = e.parentElement) {
        const c = parse(getComputedStyle(e).backgroundColor); if (c.a > 0) return c; } return parse('rgb(255,255,255)'); };
    const faint = [];
    for (const e of document.querySelectorAll('body *:not(script):not(noscript)')) {
        if (![...e.childNodes].some((n) => n.nodeType === 3 && n.nodeValue.trim())) continue;
        const [a, b] = [light(parse(getComputedStyle(e).color)), light(behind(e))];
        const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
        if (ratio < 4.5) faint.push(`${e.className || e.tagName} ${ratio.toFixed(2)}: ${e.textContent.slice(0, 40)}`);
    }
    return faint;";

/// Finds what a screen reader or a keyboard user needs and does not get.
const STRUCTURE: &str = r"
    const wrong = [], need = (what, ok) => ok || wrong.push(what);
    need('lang', document.documentElement.lang === 'en');
    need('title', document.title.includes('Mailgress'));
    for (const tag of ['header', 'main', 'footer', 'h1']) need(tag, document.querySelectorAll(tag).length === 1);
    for (const table of document.querySelectorAll('table')) {
        need('caption', table.caption && table.caption.innerText.trim());
        need('scope', [...table.querySelectorAll('th')].every((th) => th.scope));
    }
    for (const input of document.querySelectorAll('input')) need('label', input.labels.length === 1);
    for (const a of document.querySelectorAll('a, button')) need('name', a.innerText.trim() || a.textContent.trim());
    const ids = [...document.querySelectorAll('[id]')].map((e) => e.id);
    need('ids', new Set(ids).size === ids.length);
    for (const pill of document.querySelectorAll('.good, .bad, .alarming')) need('a word besides the colour', /\w/.test(pill.textContent));
    return wrong;";

const AXE: &str = "
    const done = arguments[arguments.length - 1];
    axe.run({ runOnly: ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa', 'wcag22aa', 'best-practice'] })
        .then((found) => done(found.violations.map((v) => v.id + ': ' + v.nodes.map((n) => n.html).join(' | '))));";

/// Returns axe-core's script, downloaded once from npm. Without npm or a network, prints a message and skips it.
fn axe() -> Option<String> {
    let directory = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("target/page/axe");
    let script = directory.join("node_modules/axe-core/axe.min.js");
    if !script.is_file() {
        let mut npm = std::process::Command::new("npm");
        npm.args(["install", "--silent", "--no-audit", "--no-fund", "--ignore-scripts", "--prefix"]);
        let installed = npm.arg(&directory).arg("axe-core@4.14.1").output();
        if !installed.is_ok_and(|done| done.status.success()) {
            eprintln!(
                "SKIPPED: axe-core cannot be had from npm; contrast and structure were checked without it"
            );
            return None;
        }
    }
    Some(std::fs::read_to_string(script).unwrap())
}
