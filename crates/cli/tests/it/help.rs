//! What the program says about itself.

use crate::support::cupola;

const COMMANDS: [&[&str]; 21] = [
    &[],
    &["quickstart"],
    &["tokenizer"],
    &["tokenizer", "train"],
    &["tokenizer", "encode"],
    &["tokenizer", "decode"],
    &["tokenizer", "inspect"],
    &["tokenizer", "explain"],
    &["tokenizer", "compare"],
    &["data"],
    &["data", "prepare"],
    &["train"],
    &["plan"],
    &["eval"],
    &["generate"],
    &["chat"],
    &["report"],
    &["bench"],
    &["bench", "gpu"],
    &["bench", "cpu"],
    &["doctor"],
];

#[test]
fn every_command_has_help_with_examples_and_says_what_json_gives() {
    for command in COMMANDS {
        let help = cupola(&[command, &["--help"]].concat()).success();
        let name = command.join(" ");
        assert!(help.contains("EXAMPLES:") && help.contains(&format!("cupola {name}")), "{name}: {help}");
        assert!(help.contains("--json"), "{name}: {help}");
    }
}

#[test]
fn wrong_arguments_end_with_code_2_and_the_usage() {
    let message = cupola(&["train"]).failure();
    assert!(message.contains("Usage: cupola train"), "{message}");
    let message = cupola(&["eval", "run", "--texts", "a.txt"]).failure();
    assert!(message.contains("--text"), "{message}");
}

#[test]
fn doctor_says_what_the_machine_offers() {
    let found = cupola(&["doctor", "--json"]).json();
    assert!(found["matrix_product_flops_per_second"].as_f64().unwrap() > 1e8);
    assert!(found["machine"]["threads"].as_u64().unwrap() >= 1);
    assert_eq!(found["devices"][0], "cpu");
    let text = cupola(&["doctor"]).success();
    assert!(text.contains("CUDA driver") && text.contains("libcublasLt"), "{text}");
}
