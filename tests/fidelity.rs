//! Recorded decisions of IPVS, groups A, B and C, replayed: every one must be this director's too.

use lb_tests::engine::{Engine, Host};
use lb_tests::replay::{FEATURES, Played, SIZES, play, report};
use lb_tests::traces::{Recording, recordings};

/// Groups A, B and C; recordings in other folders are taken by what they hold.
fn is_of_decisions(recording: &Recording) -> bool {
    !matches!(recording.group.rsplit('/').next(), Some("D" | "E"))
}

fn replay<E: Engine>(engine: &mut E) {
    let only = std::env::var("LB_TRACES_ONLY").ok();
    let recordings: Vec<Recording> = recordings()
        .unwrap_or_else(|error| panic!("{error}"))
        .into_iter()
        .filter(is_of_decisions)
        .filter(|recording| only.as_ref().is_none_or(|only| recording.label().contains(only)))
        .collect();
    assert!(!recordings.is_empty(), "there is nothing to replay");
    let played: Vec<(String, Played)> = recordings
        .iter()
        .map(|recording| {
            let played = play(recording, engine);
            print!("{}", report::lines(&played));
            (recording.group.clone(), played)
        })
        .collect();
    println!("{}: {} recordings", engine.name(), played.len());
    print!("{}", report::summary(played.iter().map(|(group, played)| (group.as_str(), played))));
    let different = played.iter().filter(|(_, played)| !played.differences.is_empty()).count();
    assert_eq!(different, 0, "recordings with differences");
}

#[test]
fn the_library_decides_as_ipvs_did() {
    replay(&mut Host::new(SIZES, FEATURES));
}

#[cfg(feature = "privileged")]
#[test]
fn the_loaded_program_decides_as_ipvs_did() {
    replay(&mut lb_tests::engine::Kernel::new(SIZES, FEATURES));
}
