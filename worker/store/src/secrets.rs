//! Credentials are for the store's client only: here they are taken out of every text that people see.

/// Texts shorter than this are not credentials, and common words.
const SHORTEST: usize = 8;
/// Names of environment variables that hold what must not be shown.
const SECRET_NAMES: [&str; 6] = ["KEY", "SECRET", "TOKEN", "SAS", "PASSWORD", "CREDENTIAL"];

/// Values that must not appear in any message.
#[derive(Clone)]
pub(crate) struct Secrets {
    values: Vec<String>,
}

/// Shows how many, never which.
impl std::fmt::Debug for Secrets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Secrets({})", self.values.len())
    }
}

impl Secrets {
    /// The credentials among these environment variables.
    ///
    /// A value in parts, as the query of a signature or the JSON of a service account, hides each part too.
    pub(crate) fn of(variables: &[(String, String)]) -> Self {
        let is_secret = |name: &str| {
            let name = name.to_ascii_uppercase();
            SECRET_NAMES.iter().any(|part| name.contains(part))
        };
        let mut values = Vec::new();
        for (name, value) in variables {
            // The name of a file is not its content.
            if is_secret(name) && !value.starts_with('/') {
                let parts = value.split(['"', '&', '=', '\\', ' ', '\n']).map(str::to_owned);
                values.extend(parts.chain([value.clone()]).flat_map(|part| {
                    let plain = percent_decoded(&part);
                    [part, plain]
                }));
            }
        }
        values.retain(|value| value.len() >= SHORTEST);
        // The longest first: a part must not break the whole before it is found.
        values.sort_unstable_by_key(|value| std::cmp::Reverse(value.len()));
        values.dedup();
        Self { values }
    }

    /// The text without credentials, queries of URLs and bodies of answers.
    pub(crate) fn scrub(&self, text: &str) -> String {
        let message = between(text, "<Message>", "</Message>");
        let (before, _) = text.split_once('<').unwrap_or((text, ""));
        let mut text = match message {
            Some(message) => format!("{} {message}", before.trim_end()),
            None => before.trim_end().to_owned(),
        };
        for value in &self.values {
            text = text.replace(value, "[hidden]");
        }
        without_queries(&text)
    }
}

fn between<'a>(text: &'a str, start: &str, end: &str) -> Option<&'a str> {
    Some(text.split_once(start)?.1.split_once(end)?.0)
}

/// Cuts what follows a `?` up to the end of the word: signatures travel there.
fn without_queries(text: &str) -> String {
    let words = text.split(' ').map(|word| match word.split_once('?') {
        Some((url, query)) if url.contains("://") => {
            let rest = query.find([')', '"', '\'', ',']).map_or("", |end| query.split_at(end).1);
            format!("{url}{rest}")
        }
        _ => word.to_owned(),
    });
    words.collect::<Vec<_>>().join(" ")
}

fn percent_decoded(text: &str) -> String {
    let mut pieces = text.split('%');
    let mut bytes = pieces.next().unwrap_or_default().as_bytes().to_owned();
    for piece in pieces {
        let code = piece
            .as_bytes()
            .first_chunk::<2>()
            .and_then(|digits| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok());
        if let Some(byte) = code {
            bytes.push(byte);
            bytes.extend(&piece.as_bytes()[2..]);
        } else {
            bytes.push(b'%');
            bytes.extend(piece.as_bytes());
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secrets() -> Secrets {
        Secrets::of(&[
            ("AWS_SECRET_ACCESS_KEY".to_owned(), "wJalrXUtnFEMI/K7MDENG".to_owned()),
            ("AZURE_STORAGE_SAS_TOKEN".to_owned(), "sv=2022-11-02&sig=a%2Fbcdefgh%3D".to_owned()),
            (
                "GOOGLE_SERVICE_ACCOUNT_KEY".to_owned(),
                "{\"private_key\": \"MIIEvQIBADAN\"}".to_owned(),
            ),
            ("AWS_REGION".to_owned(), "eu-central-1".to_owned()),
            ("GOOGLE_APPLICATION_CREDENTIALS".to_owned(), "/home/me/key.json".to_owned()),
        ])
    }

    #[test]
    fn a_credential_and_each_of_its_parts_are_hidden() {
        let hidden = |text: &str| secrets().scrub(text);
        assert_eq!(hidden("key wJalrXUtnFEMI/K7MDENG."), "key [hidden].");
        assert_eq!(hidden("sig a%2Fbcdefgh%3D or a/bcdefgh="), "sig [hidden] or [hidden]");
        assert_eq!(
            hidden("invalid type: string \"MIIEvQIBADAN\""),
            "invalid type: string \"[hidden]\""
        );
        assert_eq!(hidden("eu-central-1 /home/me/key.json"), "eu-central-1 /home/me/key.json");
        assert!(!format!("{:?}", secrets()).contains("wJalr"));
    }

    #[test]
    fn the_query_of_a_url_and_the_body_of_an_answer_are_cut() {
        let text = "GET https://a.net/b/c?sig=xyz&se=1 in 1 s (https://a.net/d?x=1): 403 <?xml v?><Error>\
                    <Code>No</Code><Message>Signatures differ</Message><Signed>abc</Signed></Error>";
        let shown = secrets().scrub(text);
        assert_eq!(shown, "GET https://a.net/b/c in 1 s (https://a.net/d): 403 Signatures differ");
    }
}
