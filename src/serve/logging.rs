//! klog's line format over `tracing`: `I1121 02:23:31.123456    1234 server.rs:42] message key=value`.

use std::fmt;
use std::time::{SystemTime, UNIX_EPOCH};

use tracing::{Event, Level, Subscriber};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

/// Sends the process' log to standard error. `verbosity` is klog's `-v`: up to 3 information, 4 and 5 debug, above trace.
/// `COPEPOD_LOG` (tracing's filter syntax) overrides it. The first call counts.
pub fn init(verbosity: u32) {
    let level = match verbosity {
        0..=3 => "info",
        4..=5 => "debug",
        _ => "trace",
    };
    let filter = EnvFilter::try_from_env("COPEPOD_LOG").unwrap_or_else(|_| EnvFilter::new(level));
    let subscriber = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .event_format(Klog { pid: std::process::id() })
        .finish();
    // A second call in one process (tests, several components) keeps the first one's log.
    let _already = tracing::subscriber::set_global_default(subscriber);
}

struct Klog {
    pid: u32,
}

impl<S, N> FormatEvent<S, N> for Klog
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut out: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let metadata = event.metadata();
        let level = match *metadata.level() {
            Level::ERROR => 'E',
            Level::WARN => 'W',
            _ => 'I',
        };
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let (month, day) = month_and_day(since.as_secs());
        let second = since.as_secs() % 86_400;
        let file = metadata.file().unwrap_or("?");
        let file = file.rsplit('/').next().unwrap_or(file);
        write!(
            out,
            "{level}{month:02}{day:02} {:02}:{:02}:{:02}.{:06} {:7} {file}:{}] ",
            second / 3600,
            second / 60 % 60,
            second % 60,
            since.subsec_micros(),
            self.pid,
            metadata.line().unwrap_or(0),
        )?;
        context.format_fields(out.by_ref(), event)?;
        writeln!(out)
    }
}

/// Month and day of a time in UTC. The usual civil-from-days computation; a time library for two numbers would be much.
fn month_and_day(unix_seconds: u64) -> (u64, u64) {
    let days = unix_seconds / 86_400 + 719_468;
    let day_of_era = days % 146_097;
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month + 2) / 5 + 1;
    (if month < 10 { month + 3 } else { month - 9 }, day)
}

#[cfg(test)]
mod tests {
    #[test]
    fn dates() {
        for (seconds, want) in
            [(0, (1, 1)), (951_782_400, (2, 29)), (951_868_800, (3, 1)), (1_795_219_200, (11, 21))]
        {
            assert_eq!(super::month_and_day(seconds), want, "{seconds}");
        }
    }
}
