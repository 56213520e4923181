//! `seal-supervisor top`: the status in a terminal, live.

mod screen;

use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

use ratatui::DefaultTerminal;
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use seal_host::FileError;

use crate::status::{Looker, MachineStatus, collect};
use screen::Screen;

/// How often it is looked.
const EVERY: Duration = Duration::from_secs(1);

/// A terminal interface that had to end.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TopError {
    /// The terminal cannot be used.
    #[error("the terminal cannot be used; `status` prints the same once")]
    Terminal(#[from] io::Error),
    /// The runtime directory cannot be read.
    #[error(transparent)]
    Directory(#[from] FileError),
}

/// Shows what is going on until the user ends it.
pub(crate) fn run(runtime_dir: &Path) -> Result<(), TopError> {
    let mut looker = Looker::default();
    // What cannot be read is said before the screen is taken.
    let machine = collect(runtime_dir, &mut looker)?;
    let mut terminal = ratatui::try_init()?;
    let result = show(&mut terminal, runtime_dir, &mut looker, machine);
    let restored = ratatui::try_restore();
    result?;
    Ok(restored?)
}

fn show(
    terminal: &mut DefaultTerminal,
    runtime_dir: &Path,
    looker: &mut Looker,
    mut machine: MachineStatus,
) -> Result<(), TopError> {
    let mut screen = Screen::default();
    let mut looked = Instant::now();
    loop {
        terminal.draw(|frame| screen.draw(frame, &machine))?;
        let left = EVERY.saturating_sub(looked.elapsed());
        if event::poll(left)? {
            match event::read()? {
                Event::Key(key) if key.kind == KeyEventKind::Press => {
                    if is_end(key) {
                        return Ok(());
                    }
                    pressed(&mut screen, key.code);
                }
                _ => {}
            }
        }
        if looked.elapsed() >= EVERY {
            machine = collect(runtime_dir, looker)?;
            looked = Instant::now();
        }
    }
}

fn is_end(key: KeyEvent) -> bool {
    let interrupt = key.code == KeyCode::Char('c') && key.modifiers.contains(KeyModifiers::CONTROL);
    interrupt || matches!(key.code, KeyCode::Char('q') | KeyCode::Esc)
}

fn pressed(screen: &mut Screen, key: KeyCode) {
    match key {
        KeyCode::Down | KeyCode::Char('j') => screen.scroll(1),
        KeyCode::Up | KeyCode::Char('k') => screen.scroll(-1),
        KeyCode::PageDown | KeyCode::Char(' ') => screen.scroll(10),
        KeyCode::PageUp => screen.scroll(-10),
        KeyCode::Home => screen.scroll(isize::MIN),
        _ => {}
    }
}
