use std::sync::atomic::AtomicUsize;

use super::*;

fn status(name: &str) -> Option<Status> {
    statuses().into_iter().find(|status| status.name == name)
}

#[tokio::test(start_paused = true)]
async fn a_task_that_fails_is_started_again() {
    let runs = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&runs);
    let mut task = start("again", Weight::Vital, move || {
        let run = counted.fetch_add(1, Ordering::Relaxed);
        async move {
            match run {
                0 => panic!("on purpose"),
                1 => End::Unasked,
                _ => End::Asked,
            }
        }
    });
    assert_eq!(status("again").map(|it| (it.state, it.is_vital)), Some(("running", true)));
    task.ended().await;
    assert_eq!(runs.load(Ordering::Relaxed), 3);
    assert_eq!(status("again"), None, "one that was asked to end is off the list");
}

#[tokio::test]
async fn its_state_and_its_restarts_are_shown() {
    let task = start("shown", Weight::Usual, || async { End::Unasked });
    while status("shown").is_none_or(|it| it.restarts < 2 || it.state != "restarting") {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    task.abort();
    while status("shown").is_some() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// The state that a task keeps is dropped when it is given up, and the process is told to end.
#[tokio::test(start_paused = true)]
async fn one_that_fails_again_and_again_is_hopeless() {
    let (kept, mut gone) = watch::channel(());
    let runs = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&runs);
    let began = tokio::time::Instant::now();
    let mut task = start("hopeless", Weight::Vital, move || {
        let _ = &kept;
        counted.fetch_add(1, Ordering::Relaxed);
        async { panic!("number {}", 7) }
    });
    task.ended().await;
    assert!(gone.changed().await.is_err());
    assert_eq!(runs.load(Ordering::Relaxed), 20);
    assert!(began.elapsed() > Duration::from_secs(20) && began.elapsed() < Duration::from_mins(1));
    let why = hopeless().await;
    assert_eq!(why, "the background task hopeless failed 20 times in a row: it panicked: number 7");
    assert_eq!(status("hopeless").map(|it| it.state), Some("failed"), "everybody sees it");
}

#[test]
fn a_thread_that_fails_is_started_again() {
    let runs = Arc::new(AtomicUsize::new(0));
    let (counted, (ended, wait)) = (Arc::clone(&runs), std::sync::mpsc::channel());
    start_thread("thread", Weight::Usual, move || {
        assert!(counted.fetch_add(1, Ordering::Relaxed) > 0, "the first fails");
        ended.send(()).expect("the test waits");
        End::Asked
    })
    .expect("it starts");
    wait.recv().expect("it ran again");
    assert_eq!(runs.load(Ordering::Relaxed), 2);
}
