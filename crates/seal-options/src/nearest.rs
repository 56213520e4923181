//! The word that was meant by one that is misspelt.

/// The known word nearest to `word`, if it is near enough to be a slip.
pub fn nearest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    known
        .into_iter()
        .map(|candidate| (strsim::damerau_levenshtein(word, candidate), candidate))
        .filter(|(distance, candidate)| *distance <= 1 + candidate.len() / 4)
        .min()
        .map(|(_, candidate)| candidate)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_word_is_offered_only_when_it_is_near() {
        let known = ["pc1", "pc2", "c2", "concurrent"];
        assert_eq!(nearest("pc3", known), Some("pc1"));
        assert_eq!(nearest("concurent", known), Some("concurrent"));
        assert_eq!(nearest("workers", known), None);
    }
}
