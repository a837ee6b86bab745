//! The input of a target as a script.

/// Reads the script; zeros after its end.
pub(crate) struct Script<'a>(pub(crate) &'a [u8]);

impl Script<'_> {
    pub(crate) fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        *first
    }

    /// A length and that many bytes, as text.
    pub(crate) fn text(&mut self) -> String {
        let length = usize::from(self.byte()) * 2;
        let (text, rest) = self.0.split_at(length.min(self.0.len()));
        self.0 = rest;
        String::from_utf8_lossy(text).into_owned()
    }

    /// Around a value: exact, one off, far off.
    pub(crate) fn near(&mut self, value: u64) -> u64 {
        match self.byte() % 8 {
            0 => value.saturating_sub(1),
            1 => value.saturating_add(1),
            2 => 0,
            3 => u64::from(self.byte()) * 10_000,
            4 => u64::MAX >> (self.byte() % 64),
            _ => value,
        }
    }

    /// One of these; `None` where there is none.
    pub(crate) fn pick<T: Copy>(&mut self, from: &[T]) -> Option<T> {
        let place = usize::from(self.byte());
        (!from.is_empty()).then(|| from[place % from.len()])
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}
