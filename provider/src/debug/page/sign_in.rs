//! The page of who is not signed in, or may not.

use charliehub_proto::problem::Problem;

use super::{frame, refusal};
use crate::debug::html::Html;

/// A form for a token; with what was wrong with the one before.
pub fn render(refused: Option<&Problem>, next: &str) -> String {
    let mut html = Html::new();
    frame::head(&mut html, "Sign in", None);
    html.put("<main id=\"main\" class=\"narrow\"><h1>Sign in</h1>");
    if let Some(problem) = refused {
        refusal(&mut html, problem);
    }
    html.put(
        "<form class=\"sign-in card\" method=\"post\" action=\"/debug/sign-in\"><input type=\"hidden\" name=\"next\"",
    )
    .attr("value", next);
    html.put("><p><label for=\"token\">Token of role reader, editor or admin</label><input type=\"password\" id=\"token\" name=\"token\" required autofocus autocomplete=\"current-password\" spellcheck=\"false\"></p><p><button>Sign in</button></p></form>");
    html.put("<p class=\"quiet\">The first one is in <code>admin.token</code> of the data directory. Make one to look on with: <code>charliehub-provider token create --role reader --name YOU</code></p></main>");
    frame::foot_of_form(&mut html);
    html.finish()
}

/// A refusal that another token would not change, such as a form that is too old.
pub fn refused(problem: &Problem) -> String {
    let mut html = Html::new();
    frame::head(&mut html, &problem.title, None);
    html.put("<main id=\"main\" class=\"narrow\"><h1>").text(&problem.title).put("</h1>");
    refusal(&mut html, problem);
    html.put("<p><a href=\"/debug\">Back to the page</a></p></main>");
    frame::foot_of_form(&mut html);
    html.finish()
}
