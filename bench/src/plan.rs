//! In which order cells are measured: every round does each once, and begins one further than the last, so that
//! what changes over time (a warm cache, a fuller disk, a busy neighbour) meets all of them alike.

/// The order of a round: indices of `count` cells.
pub fn order(count: usize, round: usize) -> Vec<usize> {
    (0..count).map(|index| (index + round) % count).collect()
}

/// How many rounds there are: as many as told, or one where it is only to be seen that everything works, or `usual`.
pub fn rounds(told: Option<u16>, quick: bool, usual: usize) -> usize {
    told.map_or(if quick { 1 } else { usual }, usize::from)
}

/// Whether a cell is due in a round, given that it is to be measured `wanted` times in `rounds` rounds: its times lie
/// evenly among them.
pub fn is_due(round: usize, rounds: usize, wanted: usize) -> bool {
    let done = |round: usize| round * wanted.min(rounds) / rounds.max(1);
    done(round + 1) > done(round)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_round_does_each_cell_once_and_each_cell_is_first_in_turn() {
        let mut firsts = Vec::new();
        for round in 0..7 {
            let mut order = order(7, round);
            firsts.push(order[0]);
            order.sort_unstable();
            assert_eq!(order, [0, 1, 2, 3, 4, 5, 6]);
        }
        firsts.sort_unstable();
        assert_eq!(firsts, [0, 1, 2, 3, 4, 5, 6]);
    }

    #[test]
    fn a_long_cell_is_measured_as_often_as_wanted_and_never_twice_a_round() {
        for rounds in 1..12 {
            for wanted in 1..15 {
                let times = (0..rounds).filter(|round| is_due(*round, rounds, wanted)).count();
                assert_eq!(times, wanted.min(rounds), "{wanted} of {rounds}");
            }
        }
    }
}
