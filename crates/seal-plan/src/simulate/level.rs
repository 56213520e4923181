//! A quantity over time: its mean, its peak, and its course for charts.

use std::time::Duration;

/// Pieces that a course is kept in. When time outgrows them, two become one.
const PIECES: usize = 480;

/// The first length of a piece.
const FIRST_STEP: Duration = Duration::from_secs(1);

/// A quantity that changes now and then.
#[derive(Clone, Debug)]
pub(super) struct Level {
    value: f64,
    since: Duration,
    /// Sum of value and seconds since the statistics began.
    sum: f64,
    peak: f64,
    course: Course,
}

/// What a level did, in pieces of equal length.
#[derive(Clone, Debug)]
struct Course {
    step: Duration,
    /// Sums of value and seconds, one for each piece.
    sums: Vec<f64>,
}

impl Default for Level {
    fn default() -> Self {
        let course = Course { step: FIRST_STEP, sums: Vec::new() };
        Self { value: 0.0, since: Duration::ZERO, sum: 0.0, peak: 0.0, course }
    }
}

impl Level {
    /// The value from `now` on.
    pub(super) fn set(&mut self, now: Duration, value: f64) {
        // Values are counts and shares, which are compared exactly.
        #[expect(clippy::float_cmp, reason = "only to save work when nothing changes")]
        if value == self.value {
            return;
        }
        self.catch_up(now);
        self.value = value;
        self.peak = self.peak.max(value);
    }

    pub(super) fn add(&mut self, now: Duration, change: f64) {
        self.set(now, self.value + change);
    }

    pub(super) fn value(&self) -> f64 {
        self.value
    }

    pub(super) fn peak(&self) -> f64 {
        self.peak
    }

    /// Statistics begin anew; the course stays.
    pub(super) fn begin(&mut self, now: Duration) {
        self.catch_up(now);
        self.sum = 0.0;
        self.peak = self.value;
    }

    /// The mean from `begun` to `now`.
    pub(super) fn mean(&mut self, begun: Duration, now: Duration) -> f64 {
        self.catch_up(now);
        let seconds = now.saturating_sub(begun).as_secs_f64();
        if seconds > 0.0 { self.sum / seconds } else { self.value }
    }

    /// The length of the pieces of the course, and the mean of each until `now`.
    pub(super) fn course(&mut self, now: Duration) -> (Duration, Vec<f64>) {
        self.catch_up(now);
        let step = self.course.step.as_secs_f64();
        let end = now.as_secs_f64();
        let means = self.course.sums.iter().enumerate().map(|(at, sum)| {
            #[expect(clippy::cast_precision_loss, reason = "a few hundred")]
            let begin = at as f64 * step;
            sum / (end - begin).clamp(f64::MIN_POSITIVE, step)
        });
        (self.course.step, means.collect())
    }

    fn catch_up(&mut self, now: Duration) {
        let passed = now.saturating_sub(self.since);
        if passed.is_zero() {
            return;
        }
        self.sum += self.value * passed.as_secs_f64();
        self.course.add(self.since, now, self.value);
        self.since = now;
    }
}

impl Course {
    fn add(&mut self, from: Duration, to: Duration, value: f64) {
        while self.piece(to) >= PIECES {
            let halves = self.sums.chunks(2).map(|pair| pair.iter().sum());
            self.sums = halves.collect();
            self.step *= 2;
        }
        let (first, last) = (self.piece(from), self.piece(to));
        if self.sums.len() <= last {
            self.sums.resize(last + 1, 0.0);
        }
        if first == last {
            self.sums[first] += value * (to - from).as_secs_f64();
            return;
        }
        let step = self.step.as_secs_f64();
        #[expect(clippy::cast_precision_loss, reason = "a few hundred")]
        let start = |piece: usize| piece as f64 * step;
        self.sums[first] += value * (start(first + 1) - from.as_secs_f64());
        for piece in first + 1..last {
            self.sums[piece] += value * step;
        }
        self.sums[last] += value * (to.as_secs_f64() - start(last));
    }

    fn piece(&self, at: Duration) -> usize {
        usize::try_from(at.as_nanos() / self.step.as_nanos()).unwrap_or(usize::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn mean_and_peak_are_those_since_the_beginning_of_the_statistics() {
        let mut level = Level::default();
        level.set(at(10), 9.0);
        level.set(at(20), 2.0);
        level.begin(at(20));
        level.add(at(30), 2.0);
        level.set(at(50), 1.0);
        // 2 for 10 s, 4 for 20 s, 1 for 10 s.
        assert!((level.mean(at(20), at(60)) - 110.0 / 40.0).abs() < 1e-12);
        assert!((level.peak() - 4.0).abs() < 1e-12);
    }

    #[test]
    fn the_course_keeps_the_area_however_long_it_gets() {
        let mut level = Level::default();
        let mut area = 0.0;
        let mut now = Duration::ZERO;
        for round in 0..5000_u64 {
            let value = f64::from(u32::try_from(round % 7).expect("small"));
            let length = Duration::from_millis(1 + round * 13 % 90_000);
            level.set(now, value);
            area += value * length.as_secs_f64();
            now += length;
        }
        let (step, means) = level.course(now);
        assert!(means.len() <= PIECES && means.len() > PIECES / 2 - 1, "{}", means.len());
        let whole = (means.len() - 1) as f64 * step.as_secs_f64();
        let last = now.as_secs_f64() - whole;
        let sum: f64 = means[..means.len() - 1].iter().map(|mean| mean * step.as_secs_f64()).sum();
        let sum = sum + means[means.len() - 1] * last;
        assert!((sum / area - 1.0).abs() < 1e-9, "{sum} {area}");
    }
}
