"""Small guests that answer what is typed at their serial port."""

from __future__ import annotations

from assembler import assemble

# Each answers a key with the same letter in upper case; Enter ends the line, and "q" the guest, by a reset.
_START = """
    .macro say byte
        mov dx, 0x3f8
        mov al, \\byte
        out dx, al
    .endm
    mov dx, 0x3fa
    mov al, 0x07
    out dx, al
    say 'o'
    say 'k'
    say '>'
    say ' '
"""
_ANSWER = """
    mov dx, 0x3f8
    in al, dx
    cmp al, 'q'
    je quit
    cmp al, 13
    je enter
    cmp al, 'a'
    jb 1f
    cmp al, 'z'
    ja 1f
    and al, 0xdf
1:  out dx, al
    jmp answered
enter:
    say 13
    say 10
    say '>'
    say ' '
answered:
"""
_QUIT = """
quit:
    say 'B'
    say 'Y'
    say 'E'
    mov al, 0xfe
    out 0x64, al
    hlt
"""


def polling() -> bytes:
    """A guest that reads the line status until a key is there."""
    return assemble(
        f"""{_START}
wait: mov dx, 0x3fd
    in al, dx
    test al, 1
    jz wait
    {_ANSWER}
    jmp wait
    {_QUIT}"""
    )


def sleeping() -> bytes:
    """A guest that sleeps with no timer until the port interrupts it."""
    return assemble(
        f"""
    cli
    # Interrupts reload CS: the image has to be where real mode finds it.
    mov ax, 0xf000
    mov es, ax
    xor si, si
    xor di, di
    mov cx, 0x8000
    rep movsw es:[di], cs:[si]
    xor ax, ax
    mov ds, ax
    mov ss, ax
    mov sp, 0x7000
    mov word ptr ds:[0x24 * 4], offset handler - _start
    mov word ptr ds:[0x24 * 4 + 2], cs
    mov al, 0x11
    out 0x20, al
    mov al, 0x20
    out 0x21, al
    mov al, 4
    out 0x21, al
    mov al, 1
    out 0x21, al
    mov al, 0xef
    out 0x21, al
    # Without its local APIC the CPU gets the 8259's interrupts straight.
    mov ecx, 0x1b
    rdmsr
    and ah, 0xf7
    wrmsr
    {_START}
    mov dx, 0x3f9
    mov al, 1
    out dx, al
sleep: sti
    hlt
    jmp sleep
    # The 8259 sees edges: the line falls when all is read.
handler:
    mov dx, 0x3fd
    in al, dx
    test al, 1
    jz handled
    {_ANSWER}
    jmp handler
handled:
    mov al, 0x20
    out 0x20, al
    iret
    {_QUIT}"""
    )


def deaf() -> bytes:
    """A guest that says a line, checking the transmitter as drivers do, and ends."""
    letters = "".join(
        f"""
    mov dx, 0x3fd
{number}1: in al, dx
    test al, 0x20
    jz {number}1b
    say {letter}
    mov dx, 0x3fd
{number}2: in al, dx
    test al, 0x40
    jz {number}2b"""
        for number, letter in enumerate(b"hello\n", start=1)
    )
    return assemble(f"{_START}{letters}\njmp quit\n{_QUIT}")
