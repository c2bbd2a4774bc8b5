//! Connections in the world's time: how bytes get from clients to the edge and back, and how a connection ends.

use forebay_core::worker::Mode;

use crate::coverage::Mark;
use crate::schedule::Action;
use crate::sockets::{Conn, Owner, Socket};
use crate::world::{World, trace};

/// How long a slow client takes between two sips, in milliseconds, at most.
const SIP_MS: u64 = 40;

impl World {
    pub(crate) fn socket(&mut self, conn: Conn) -> Option<&mut Socket> {
        let edge = self.edge.as_mut().filter(|edge| edge.life == conn.life)?;
        edge.seats[conn.worker].sockets.table.get_mut(&conn.key)
    }

    /// A client connects, if there is somebody to connect to.
    pub(crate) fn open(&mut self, owner: Owner, mode: Mode) -> Result<Option<Conn>, String> {
        let Some(edge) = &self.edge else { return Ok(None) };
        if edge.is_draining || edge.paused_until_ms > self.now_ms {
            return Ok(None);
        }
        let (life, seats) = (edge.life, edge.seats.len());
        let worker = self.random.index(seats);
        let capacity = self.scenario.limits.socket_bytes;
        let mut conn = None;
        self.at_worker(worker, |machine, sockets, now_ms| {
            let key = machine.accept(now_ms, mode, false);
            sockets.table.insert(key, Socket::new(owner, capacity));
            conn = Some(Conn { life, worker, key });
        })?;
        Ok(conn)
    }

    /// A client sends, a moment later, at times in pieces. Says when all is sent.
    pub(crate) fn send_soon(&mut self, conn: Conn, bytes: &[u8]) -> u64 {
        self.send_behind(conn, self.now_ms, bytes)
    }

    /// The same, but not before then: behind what it has sent already.
    pub(crate) fn send_behind(&mut self, conn: Conn, after_ms: u64, bytes: &[u8]) -> u64 {
        let mut due_ms = self.now_ms.max(after_ms);
        let mut rest = bytes;
        while !rest.is_empty() {
            let cut = if self.random.chance(200) {
                1 + self.random.index(rest.len())
            } else {
                rest.len()
            };
            let (piece, behind) = rest.split_at(cut.min(rest.len()));
            due_ms += self.random.up_to(3);
            self.schedule.at(due_ms, Action::ClientSend { conn, bytes: piece.to_vec() });
            rest = behind;
        }
        due_ms
    }

    pub(crate) fn client_send(&mut self, conn: Conn, bytes: &[u8]) {
        let Some(socket) = self.socket(conn).filter(|socket| !socket.fin) else { return };
        socket.unread.extend(bytes);
        self.plan_edge_read(conn);
    }

    pub(crate) fn plan_edge_read(&mut self, conn: Conn) {
        let now_ms = self.now_ms;
        let Some(socket) = self.socket(conn) else { return };
        if !std::mem::replace(&mut socket.is_edge_read_planned, true) {
            self.schedule.at(now_ms, Action::EdgeRead { conn });
        }
    }

    /// The edge reads a socket, as the shell does.
    pub(crate) fn edge_read(&mut self, conn: Conn) -> Result<(), String> {
        let Some(socket) = self.socket(conn) else { return Ok(()) };
        socket.is_edge_read_planned = false;
        self.at_worker(conn.worker, |machine, sockets, now_ms| {
            loop {
                let room = machine.room(conn.key);
                let Some(socket) = sockets.table.get_mut(&conn.key) else { return };
                if socket.is_closed {
                    return;
                }
                if socket.is_reset {
                    return machine.handle_error(conn.key);
                }
                if room == 0 {
                    if socket.fin {
                        machine.handle_read_closed(now_ms, conn.key);
                    }
                    return;
                }
                if socket.unread.is_empty() {
                    if socket.fin && !std::mem::replace(&mut socket.fin_read, true) {
                        machine.handle_eof(now_ms, sockets, conn.key);
                    }
                    return;
                }
                let bytes: Vec<u8> = socket.unread.drain(..room.min(socket.unread.len())).collect();
                machine.handle_input(now_ms, sockets, conn.key, &bytes);
            }
        })
    }

    pub(crate) fn edge_writable(&mut self, conn: Conn) -> Result<(), String> {
        let Some(socket) = self.socket(conn) else { return Ok(()) };
        if socket.is_closed || socket.is_shut {
            return Ok(());
        }
        let was_blocked = socket.is_blocked && socket.full_since_ms.is_none();
        self.at_worker(conn.worker, |machine, sockets, now_ms| {
            machine.handle_writable(now_ms, sockets, conn.key);
        })?;
        if was_blocked
            && let Some(socket) = self.socket(conn)
            && socket.full_since_ms.is_none()
        {
            socket.is_blocked = false;
            self.mark(Mark::Drained);
        }
        Ok(())
    }

    /// Not all of a write was taken.
    pub(crate) fn see_refused(&mut self, conn: Conn, bytes: usize) {
        let max = self.scenario.limits.backlog_bytes_max;
        let Some(socket) = self.socket(conn) else { return };
        let owner = socket.owner;
        if bytes > max
            && matches!(owner, Owner::Client(_) | Owner::Speaker(_))
            && !std::mem::replace(&mut socket.is_blocked, true)
        {
            self.mark(Mark::Blocked);
        }
        if matches!(owner, Owner::Visitor(_)) {
            self.mark(Mark::AnswerWaits);
        }
        // Were there room already, nobody would say so later.
        self.see_room(conn);
    }

    pub(crate) fn plan_client_read(&mut self, conn: Conn) {
        let Some(socket) = self.socket(conn) else { return };
        if socket.is_read_planned {
            return;
        }
        let owner = socket.owner;
        let wait_ms = match owner {
            Owner::Vanished => return,
            _ if self.pauses(owner, conn) => return,
            Owner::Client(client) if self.clients[client].sip_bytes > 0 => SIP_MS,
            Owner::Speaker(speaker) if self.speakers[speaker].sip_bytes > 0 => SIP_MS,
            Owner::Client(_) | Owner::Speaker(_) => 2,
            Owner::Visitor(visitor) => self.visitor_wait_ms(visitor),
        };
        let due_ms = self.now_ms + self.random.up_to(wait_ms);
        if let Some(socket) = self.socket(conn) {
            socket.is_read_planned = true;
        }
        self.schedule.at(due_ms, Action::ClientRead { conn });
    }

    /// Whether a client does not read this connection, which is the one that it has.
    fn pauses(&self, owner: Owner, conn: Conn) -> bool {
        let (is_paused, its) = match owner {
            Owner::Client(client) => (self.clients[client].is_paused, self.clients[client].conn),
            Owner::Speaker(speaker) => {
                (self.speakers[speaker].is_paused, self.speakers[speaker].conn)
            }
            Owner::Visitor(_) | Owner::Vanished => return false,
        };
        is_paused && its == Some(conn)
    }

    /// A client reads what waits for it, or a sip of it.
    pub(crate) fn client_read(&mut self, conn: Conn) -> Result<(), String> {
        let Some(socket) = self.socket(conn) else { return Ok(()) };
        socket.is_read_planned = false;
        let owner = socket.owner;
        let sip_bytes = match owner {
            Owner::Vanished => return Ok(()),
            _ if self.pauses(owner, conn) => return Ok(()),
            Owner::Client(client) => self.clients[client].sip_bytes,
            Owner::Speaker(speaker) => self.speakers[speaker].sip_bytes,
            Owner::Visitor(_) => 0,
        };
        let Some(socket) = self.socket(conn) else { return Ok(()) };
        let len = socket.kernel.len();
        let sip_bytes = if sip_bytes == 0 { len } else { sip_bytes.min(len) };
        let bytes: Vec<u8> = socket.kernel.drain(..sip_bytes).collect();
        let is_over = socket.kernel.is_empty() && (socket.is_shut || socket.is_closed);
        let has_more = !socket.kernel.is_empty();
        self.see_room(conn);
        self.give(owner, conn, &bytes)?;
        if is_over {
            self.end_of_connection(conn)?;
        } else if has_more {
            self.plan_client_read(conn);
        }
        Ok(())
    }

    /// A socket that was full has room: the edge hears of it.
    fn see_room(&mut self, conn: Conn) {
        let (now_ms, due_ms) = (self.now_ms, self.now_ms + 1);
        let stuck_ms = self.stuck_ms();
        let Some(socket) = self.socket(conn) else { return };
        if let Some(since_ms) = socket.full_since_ms
            && socket.has_room()
        {
            // The edge may be about to give up, and not know yet that there is room.
            socket.is_given_up |= now_ms >= since_ms + stuck_ms;
            socket.full_since_ms = None;
            self.schedule.at(due_ms, Action::Writable { conn });
        }
    }

    /// How long a client must have taken nothing if the edge gives it up: its clock may have leapt meanwhile.
    fn stuck_ms(&self) -> u64 {
        self.scenario.timeouts.stream_ms / 2
    }

    fn give(&mut self, owner: Owner, conn: Conn, bytes: &[u8]) -> Result<(), String> {
        if bytes.is_empty() {
            return Ok(());
        }
        match owner {
            Owner::Client(client) if self.clients[client].conn == Some(conn) => {
                self.client_bytes(client, bytes)
            }
            Owner::Visitor(visitor) if self.visitors[visitor].conn == Some(conn) => {
                self.visitor_bytes(visitor, bytes)
            }
            Owner::Speaker(speaker) if self.speakers[speaker].conn == Some(conn) => {
                self.speaker_bytes(speaker, bytes)
            }
            Owner::Client(_) | Owner::Speaker(_) | Owner::Visitor(_) | Owner::Vanished => Ok(()),
        }
    }

    /// The edge sends nothing more on a connection, and all is read.
    fn end_of_connection(&mut self, conn: Conn) -> Result<(), String> {
        let Some(socket) = self.socket(conn) else { return Ok(()) };
        let (owner, is_excused, is_closed) = (socket.owner, socket.is_given_up, socket.is_closed);
        if is_closed {
            self.remove_socket(conn);
        } else {
            self.close_side(conn);
        }
        self.tell_cut(owner, conn, is_excused)
    }

    fn tell_cut(&mut self, owner: Owner, conn: Conn, is_excused: bool) -> Result<(), String> {
        match owner {
            Owner::Client(client) if self.clients[client].conn == Some(conn) => {
                self.client_cut(client, is_excused)
            }
            Owner::Visitor(visitor) if self.visitors[visitor].conn == Some(conn) => {
                self.visitor_cut(visitor, is_excused)
            }
            Owner::Speaker(speaker) if self.speakers[speaker].conn == Some(conn) => {
                self.speaker_cut(speaker, is_excused)
            }
            Owner::Client(_) | Owner::Speaker(_) | Owner::Visitor(_) | Owner::Vanished => Ok(()),
        }
    }

    fn remove_socket(&mut self, conn: Conn) {
        if let Some(edge) = self.edge_of(conn.life) {
            edge.seats[conn.worker].sockets.table.remove(&conn.key);
        }
    }

    /// The client closes its side.
    pub(crate) fn close_side(&mut self, conn: Conn) {
        if let Some(socket) = self.socket(conn) {
            socket.fin = true;
            self.plan_edge_read(conn);
        }
    }

    /// The client is gone, in one of three ways.
    pub(crate) fn abandon(&mut self, conn: Conn) -> Result<(), String> {
        let way = if self.is_operating { self.random.up_to(9) } else { 0 };
        let Some(socket) = self.socket(conn) else { return Ok(()) };
        if socket.is_closed {
            self.remove_socket(conn);
            return Ok(());
        }
        socket.owner = Owner::Vanished;
        match way {
            0..=4 => {
                // All is read and dropped, as by a process that ends.
                socket.kernel.clear();
                self.mark(Mark::ClientHalfClosed);
                self.close_side(conn);
            }
            5..=7 => {
                socket.is_reset = true;
                self.mark(Mark::ClientReset);
                self.plan_edge_read(conn);
            }
            _ => trace!(self, "{conn:?} vanishes"),
        }
        Ok(())
    }

    /// The edge sends no more than what was written.
    pub(crate) fn see_shutdown(&mut self, conn: Conn) -> Result<(), String> {
        let Some(socket) = self.socket(conn) else { return Ok(()) };
        if std::mem::replace(&mut socket.is_shut, true) {
            return Err(format!("{conn:?} is shut down twice"));
        }
        self.plan_client_read(conn);
        Ok(())
    }

    /// The edge drops a connection.
    pub(crate) fn see_closed(&mut self, conn: Conn) -> Result<(), String> {
        let (now_ms, stuck_ms) = (self.now_ms, self.stuck_ms());
        let Some(socket) = self.socket(conn) else { return Err("a socket closes twice".into()) };
        if std::mem::replace(&mut socket.is_closed, true) {
            return Err(format!("{conn:?} is closed twice"));
        }
        let is_stuck = |since: u64| now_ms >= since + stuck_ms;
        socket.is_given_up |= socket.full_since_ms.is_some_and(is_stuck) || socket.is_reset;
        if socket.owner == Owner::Vanished {
            let was_silent = !socket.fin && !socket.is_reset;
            self.remove_socket(conn);
            if was_silent {
                self.mark(Mark::HalfDeadEnded);
            }
            return Ok(());
        }
        self.plan_client_read(conn);
        Ok(())
    }

    /// The edge is gone, and with it this socket: the client reads what is there, or a reset takes it.
    pub(crate) fn end_socket(&mut self, conn: Conn, socket: Socket) -> Result<(), String> {
        let bytes: Vec<u8> = socket.kernel.into();
        if self.random.chance(500) {
            self.give(socket.owner, conn, &bytes)?;
        }
        self.tell_cut(socket.owner, conn, true)
    }
}
