//! Closing a connection without losing the last answer.
//!
//! Closing a socket with unread bytes sends a reset, which may destroy the answer before a client that is still writing reads it
//! (RFC 9112 section 9.6). So after an answer that did not wait for its whole request, our half of the connection is closed
//! first, and the other half is drained for a while.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};

use http_kit::Discard;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::Sleep;

use crate::connections::Pace;

pub struct Lingering {
    stream: TcpStream,
    /// Bytes already taken from the stream, which are read first.
    begun: Vec<u8>,
    /// How much the client may keep writing after its answer.
    linger: Discard,
    /// Whether the client may still be writing when the connection ends.
    closes: Arc<AtomicBool>,
    /// What is told that bytes come and go.
    pace: Option<Arc<Pace>>,
    /// Set once our half is closed.
    until: Option<Pin<Box<Sleep>>>,
    discarded: u64,
}

impl Lingering {
    pub fn new(
        stream: TcpStream,
        begun: Vec<u8>,
        linger: Discard,
        closes: Arc<AtomicBool>,
        pace: Option<Arc<Pace>>,
    ) -> Self {
        Self { stream, begun, linger, closes, pace, until: None, discarded: 0 }
    }

    fn has_written(&self, polled: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if let (Poll::Ready(Ok(1..)), Some(pace)) = (&polled, &self.pace) {
            pace.has_written();
        }
        polled
    }
}

impl AsyncRead for Lingering {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.begun.is_empty() {
            let before = buffer.filled().len();
            let polled = Pin::new(&mut self.stream).poll_read(cx, buffer);
            if let Some(pace) = self.pace.as_ref().filter(|_| buffer.filled().len() > before) {
                pace.has_read();
            }
            return polled;
        }
        let length = self.begun.len().min(buffer.remaining());
        buffer.put_slice(&self.begun[..length]);
        self.begun.drain(..length);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Lingering {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.has_written(polled)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write_vectored(cx, slices);
        self.has_written(polled)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.until.is_none() {
            ready!(Pin::new(&mut this.stream).poll_shutdown(cx))?;
        }
        if !this.closes.load(Ordering::Relaxed) {
            return Poll::Ready(Ok(()));
        }
        let until = this.until.get_or_insert_with(|| Box::pin(tokio::time::sleep(this.linger.time)));
        let mut bytes = [0; 16 * 1024];
        while this.discarded < this.linger.bytes && until.as_mut().poll(cx).is_pending() {
            let mut buffer = ReadBuf::new(&mut bytes);
            let read = ready!(Pin::new(&mut this.stream).poll_read(cx, &mut buffer));
            if read.is_err() || buffer.filled().is_empty() {
                break;
            }
            this.discarded += buffer.filled().len() as u64;
        }
        Poll::Ready(Ok(()))
    }
}
