//! Server-sent events out of the pieces in which a body arrives. Source: the WHATWG HTML standard, 9.2.6.

/// One event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ServerEvent {
    /// Its name; `message` where the server gave none.
    pub(crate) name: String,
    /// Its data lines, joined by line breaks.
    pub(crate) data: String,
}

/// Takes text as it comes and gives events as they become whole.
#[derive(Debug, Default)]
pub(crate) struct Parser {
    line: String,
    name: String,
    data: Vec<String>,
    after_return: bool,
}

impl Parser {
    /// The events that `text` makes whole.
    pub(crate) fn push(&mut self, text: &str) -> Vec<ServerEvent> {
        let mut events = Vec::new();
        for character in text.chars() {
            let is_second_half = character == '\n' && self.after_return;
            self.after_return = character == '\r';
            match character {
                _ if is_second_half => {}
                '\n' | '\r' => events.extend(self.end_line()),
                _ => self.line.push(character),
            }
        }
        events
    }

    fn end_line(&mut self) -> Option<ServerEvent> {
        let line = std::mem::take(&mut self.line);
        if line.is_empty() {
            let name = std::mem::take(&mut self.name);
            let data = std::mem::take(&mut self.data);
            let name = if name.is_empty() { "message".into() } else { name };
            return (!data.is_empty()).then(|| ServerEvent { name, data: data.join("\n") });
        }
        let (field, value) = line.split_once(':').unwrap_or((&line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "event" => self.name = value.to_owned(),
            "data" => self.data.push(value.to_owned()),
            // A comment (`: keep-alive`), an id or a retry time: nothing that a run needs.
            _ => {}
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(name: &str, data: &str) -> ServerEvent {
        ServerEvent { name: name.into(), data: data.into() }
    }

    const BODY: &str = ": hello\n\nevent: token\ndata: {\"a\":1}\n\ndata:x\r\ndata: y\r\n\r\nevent: gone\n\nevent:answer\ndata: {}\n\n";

    #[test]
    fn a_body_gives_the_same_events_however_it_is_cut() {
        let expected = [event("token", "{\"a\":1}"), event("message", "x\ny"), event("answer", "{}")];
        assert_eq!(Parser::default().push(BODY), expected);
        for size in 1..BODY.len() {
            let mut parser = Parser::default();
            let pieces = BODY.as_bytes().chunks(size).map(|piece| std::str::from_utf8(piece).unwrap());
            let events: Vec<_> = pieces.flat_map(|piece| parser.push(piece)).collect();
            assert_eq!(events, expected, "pieces of {size}");
        }
    }

    #[test]
    fn an_event_that_is_not_whole_is_not_given() {
        assert_eq!(Parser::default().push("event: token\ndata: {}\n"), []);
    }
}
