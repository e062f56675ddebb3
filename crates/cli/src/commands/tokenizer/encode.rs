//! `cupola tokenizer encode`: text to ids.

use std::io::{self, BufRead, BufReader, BufWriter, Read, Write};
use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::Args;
use data::document::open_text;
use tokenizer::{TokenId, Tokenizer};

use super::utf8::CheckedUtf8;

const EXAMPLES: &str = "\
EXAMPLES:
  cupola tokenizer encode --tokenizer tokenizer.json --text 'Hello, world'
  cupola tokenizer encode --tokenizer gpt2/ --input book.txt --json > ids.json
  cupola tokenizer encode --tokenizer bert/ --text 'Hello, world' --add-special-tokens
  zstdcat book.txt.zst | cupola tokenizer encode --tokenizer tokenizer.json

Special tokens in the text are recognised. Memory does not grow with the text, unless the tokenizer normalises it or has a
model over characters (SentencePiece, WordPiece); a word is held whole, at about 13 bytes for each of its own. With --json: {\"ids\": [...]}.";

#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Encode {
    /// A tokenizer.json, .model or .tiktoken file, or a folder with one or with vocab.json and merges.txt
    #[arg(long, value_name = "FILE")]
    tokenizer: PathBuf,
    /// The text; without --text and --input it is read from standard input
    #[arg(long, value_name = "TEXT", conflicts_with = "input")]
    text: Option<String>,
    /// A file, all of which is text; a name that ends in .zst or .gz is decompressed
    #[arg(long, value_name = "FILE")]
    input: Option<PathBuf>,
    /// Put the tokens around the text that the tokenizer's file asks for, such as `<s>` or `[CLS]` and `[SEP]`
    #[arg(long)]
    add_special_tokens: bool,
    /// Accept text that is not UTF-8
    #[arg(long)]
    raw_bytes: bool,
    /// Print one JSON object instead
    #[arg(long)]
    json: bool,
}

impl Encode {
    pub(super) fn run(self) -> Result<()> {
        let tokenizer = Tokenizer::from_file(&self.tokenizer)?;
        let mut output = BufWriter::new(io::stdout().lock());
        let text = self.reader()?;
        let (start, separator, end) = if self.json { ("{\"ids\":[", ",", "]}\n") } else { ("", " ", "\n") };
        let written = "cannot write to standard output";
        let streamed = tokenizer.encode_stream(text).map(|id| id.with_context(|| self.source()));
        let ids: Box<dyn Iterator<Item = Result<TokenId>>> = match self.add_special_tokens {
            true => {
                let ids = streamed.collect::<Result<Vec<TokenId>>>()?;
                Box::new(tokenizer.post_process(&ids).into_iter().map(Ok))
            }
            false => Box::new(streamed),
        };
        output.write_all(start.as_bytes()).context(written)?;
        for (i, id) in ids.enumerate() {
            let id = id?;
            let separator = if i == 0 { "" } else { separator };
            write!(output, "{separator}{id}").context(written)?;
        }
        output.write_all(end.as_bytes()).and_then(|()| output.flush()).context(written)
    }

    fn source(&self) -> String {
        match &self.input {
            Some(path) => format!("cannot encode {}", path.display()),
            None if self.text.is_some() => "cannot encode the text of --text".to_owned(),
            None => "cannot encode standard input".to_owned(),
        }
    }

    fn reader(&self) -> Result<Box<dyn BufRead + '_>> {
        let bytes: Box<dyn Read + '_> = match (&self.text, &self.input) {
            (Some(text), _) => Box::new(text.as_bytes()),
            (None, None) => Box::new(io::stdin().lock()),
            (None, Some(path)) => Box::new(open_text(path)?),
        };
        Ok(match self.raw_bytes {
            true => Box::new(BufReader::with_capacity(1 << 16, bytes)),
            false => Box::new(BufReader::with_capacity(1 << 16, CheckedUtf8::new(bytes))),
        })
    }
}
