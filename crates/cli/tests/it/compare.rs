//! `cupola tokenizer compare`: its figures, its page, and what it makes of hostile text.

use std::fs;
use std::path::Path;

use crate::support::{cupola, cupola_with_input, small_text};

/// A folder with a text, the bytes as a tokenizer, and a small BPE.
struct Place(tempfile::TempDir);

impl Place {
    fn new() -> Self {
        let place = Place(tempfile::tempdir().unwrap());
        let text = place.write("text.txt", small_text().as_bytes());
        cupola(&["tokenizer", "train", "--kind", "bytes", "--output", &place.at("bytes.json")]).success();
        let bpe = place.at("bpe.json");
        cupola(&["tokenizer", "train", "--input", &text, "--vocab-size", "280", "--output", &bpe]).success();
        place
    }

    fn at(&self, name: &str) -> String {
        self.0.path().join(name).to_str().unwrap().to_owned()
    }

    fn write(&self, name: &str, content: &[u8]) -> String {
        let path = self.0.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
        self.at(name)
    }

    /// The command with both tokenizers and more arguments.
    fn compare<'a>(&'a self, arguments: &[&'a str]) -> crate::support::Outcome {
        let tokenizers = [self.at("bytes.json"), self.at("bpe.json")];
        cupola(&[&["tokenizer", "compare", "--tokenizer", &tokenizers[0], &tokenizers[1]], arguments].concat())
    }
}

#[test]
fn the_figures_are_those_of_the_text() {
    let place = Place::new();
    let text = small_text();
    let found = place.compare(&["--input", &place.at("text.txt"), "--json"]).json();
    assert_eq!(found["text"]["n_bytes"], text.len());
    assert_eq!(found["text"]["n_characters"], text.chars().count());
    assert_eq!(found["text"]["n_words"], text.split_whitespace().count());
    let [bytes, bpe] = [&found["tokenizers"][0], &found["tokenizers"][1]];
    assert_eq!((&bytes["name"], &bytes["n_tokens"]), (&"bytes".into(), &text.len().into()));
    let ids = cupola(&["tokenizer", "encode", "--tokenizer", &place.at("bpe.json"), "--input", &place.at("text.txt")]);
    let n = ids.success().split_whitespace().count();
    assert_eq!(bpe["n_tokens"], n);
    assert!((bpe["bytes_per_token"].as_f64().unwrap() - text.len() as f64 / n as f64).abs() < 1e-12);
    assert_eq!((&bpe["is_exact"], &bpe["n_unknown"]), (&true.into(), &0.into()));
    let sample = found["sample"]["tokenizers"][0]["ids"].as_array().unwrap();
    assert_eq!(sample.len(), found["sample"]["text"].as_str().unwrap().len());

    let told = place.compare(&["--input", &place.at("text.txt")]).success();
    for part in ["bytes per token", "tokens per word", "ids never used", "bpe in tokens", "the|␣"] {
        assert!(told.contains(part), "{part:?} is not in {told}");
    }
    assert!(!told.contains('\x1b'), "no colours where there is no terminal");
}

#[test]
fn standard_input_and_a_text_are_measured_too() {
    let place = Place::new();
    let command = ["tokenizer", "compare", "--tokenizer", &place.at("bytes.json"), "--input", "-", "--json"];
    let found = cupola_with_input(&command, "aé b".as_bytes()).json();
    assert_eq!((&found["text"]["n_bytes"], &found["text"]["n_words"]), (&5.into(), &2.into()));
    let found = place.compare(&["--text", "aé b", "--json"]).json();
    assert_eq!(found["sample"]["tokenizers"][0]["ids"], serde_json::json!([97, 195, 169, 32, 98]));
    let told = place.compare(&["--text", "aé b", "--color", "always"]).success();
    assert!(told.contains("\x1b[30;48;5;153m‹C3›\x1b[0m"), "{told}");
}

#[test]
fn languages_are_compared_with_english() {
    let place = Place::new();
    place.write("udhr/en.txt", b"All human beings are born free");
    place.write("udhr/de.txt", "Alle Menschen sind frei und gleich an Würde geboren".as_bytes());
    place.write("udhr/ja.txt", "すべての人間は".as_bytes());
    let folder = place.at("udhr");
    let found = place.compare(&["--languages", &folder, "--json"]).json();
    let lines = "{\"lang\": \"en\", \"text\": \"All human beings\"}\n{\"lang\": \"en\", \"text\": \" are born free\"}\n\
                 {\"language\": \"de\", \"text\": \"Alle Menschen sind frei und gleich an Würde geboren\"}\n\n\
                 {\"lang\": \"ja\", \"text\": \"すべての人間は\"}\n";
    let file = place.write("udhr.jsonl", lines.as_bytes());
    let of_lines = place.compare(&["--languages", &file, "--json"]).json();
    for found in [&found, &of_lines] {
        assert_eq!((&found["base"], &found["text"]), (&"en".into(), &serde_json::Value::Null));
        let languages = found["languages"].as_array().unwrap();
        let names: Vec<&str> = languages.iter().map(|one| one["language"].as_str().unwrap()).collect();
        assert_eq!(names, ["ja", "en", "de"], "the cheapest first");
        let of_bytes = |i: usize| &languages[i]["tokenizers"][0];
        assert_eq!(of_bytes(1)["premium"], 1.0);
        assert_eq!((&of_bytes(2)["n_tokens"], &of_bytes(2)["premium"]), (&52.into(), &(52.0 / 30.0).into()));
        assert_eq!(
            (&of_bytes(0)["tokens_per_word"], &of_bytes(0)["tokens_per_character"]),
            (&serde_json::Value::Null, &3.0.into())
        );
    }
    assert!(place.compare(&["--languages", &folder]).success().contains("as many times those of en"));
    let other = place.compare(&["--languages", &folder, "--base", "de", "--json"]).json();
    assert_eq!(other["base"], "de");
    let message = place.compare(&["--languages", &folder, "--base", "fr"]).failure();
    assert!(message.contains("no language \"fr\"") && message.contains("de, en, ja"), "{message}");
    let bad = place.write("bad.jsonl", b"{\"lang\": \"en\", \"text\": \"a\"}\n{\"text\": \"b\"}\n");
    let message = place.compare(&["--languages", &bad]).failure();
    assert!(message.contains("bad.jsonl, line 2") && message.contains("hint: "), "{message}");
}

#[test]
fn the_page_stands_alone_and_no_text_on_it_is_markup() {
    let place = Place::new();
    let evil = "<script>alert(\"1\")</script> '&amp; \x1b[2J \u{202e} \0 </span><b>é世\n";
    let evil = place.write("<b>evil.txt", evil.repeat(3).as_bytes());
    place.write("languages/<i>.txt", b"<u>");
    let named = format!("<s>={}", place.at("bpe.json"));
    let page = place.at("page.html");
    let (languages, bytes) = (place.at("languages"), place.at("bytes.json"));
    let command = ["tokenizer", "compare", "--tokenizer", &named, &bytes, "--input", &evil, "--output", &page];
    let told = cupola(&[&command[..], &["--languages", &languages]].concat()).success();
    assert!(told.trim_end().ends_with("page.html") && !told.contains('\x1b') && !told.contains('\0'), "{told}");
    let html = fs::read_to_string(&page).unwrap();
    assert_eq!(html.matches("<script").count(), 1, "only the page's own");
    for markup in ["<b>", "<s>", "<u>", "<i>.", "alert(\"", "\x1b", "\0", "\u{202e}", "src=", "@import"] {
        assert!(!html.contains(markup), "{markup:?}");
    }
    assert!(html.contains("Content-Security-Policy") && html.contains("prefers-color-scheme: dark"));
    assert!(html.contains("title=\"id 0 · 1 bytes: 00\"") && html.contains("part of 世"), "{html}");
    for element in ["span", "div", "figure", "table", "svg", "td", "tr", "th", "i", "small", "section"] {
        let opened = html.matches(&format!("<{element}>")).count() + html.matches(&format!("<{element} ")).count();
        assert_eq!(opened, html.matches(&format!("</{element}>")).count(), "{element}");
    }
}

#[test]
fn what_is_wrong_is_named_and_an_earlier_page_stays() {
    let place = Place::new();
    let page = place.write("page.html", b"earlier");
    let bad = place.write("bad.txt", b"good\nbad \xff\xfe text");
    let text = place.at("text.txt");
    let cases: [(&[&str], &[&str]); 6] = [
        (&["--input", &bad], &["bad.txt, line 2", "offset 9", "--raw-bytes"]),
        (&["--input", &place.at("missing.txt")], &["missing.txt does not exist"]),
        (&["--tokenizer", &text, "--input", &text], &["text.txt is not JSON"]),
        (&["--text", ""], &["--text is empty", "hint: "]),
        (&["--languages", &place.at("nowhere")], &["nowhere"]),
        (&[], &["--input"]),
    ];
    for (arguments, parts) in cases {
        let message = place.compare(&[arguments, &["--output", &page]].concat()).failure();
        for part in parts {
            assert!(message.contains(part), "{part:?} is not in: {message}");
        }
    }
    let folder = place.0.path().to_str().unwrap();
    assert!(place.compare(&["--input", &text, "--output", folder]).failure().contains("is a folder"));
    let message = place.compare(&["--input", &text, "--output", &place.at("none/page.html")]).failure();
    assert!(message.contains("none for --output") && message.contains("hint: "), "{message}");
    assert_eq!(fs::read(&page).unwrap(), b"earlier");
    let found = place.compare(&["--input", &bad, "--raw-bytes", "--output", &page, "--json"]).json();
    assert_eq!((&found["tokenizers"][0]["n_tokens"], &found["tokenizers"][0]["is_exact"]), (&16.into(), &true.into()));
    assert!(fs::read_to_string(&page).unwrap().starts_with("<!doctype html>"));
    assert!(!Path::new(&place.at("page.html.tmp")).exists());
}
